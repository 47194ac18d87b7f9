// The test page of signaling: a call of everybody in a room, and the symbol that they watch.
//
// All hear the JOINs of a room in the same order, their own among them: whoever was there before
// makes the offer, so that no two peers ever offer to each other at once.

import "./sign-in.js";  // first: the user may have come back from the issuer

import { Connection } from "./connection.js";
import { Market } from "./market.js";
import { Prices } from "./prices.js";
import { request } from "./rest.js";
import { Stomp } from "./stomp.js";
import { Tape } from "./tape.js";

const $ = (id) => document.getElementById(id);
const me = crypto.randomUUID();
const stomp = new Stomp();
const peers = new Map();
const connection = new Connection("stream");
const market = new Market(connection);
const tape = new Tape(document.querySelector(".tape"), connection);
const prices = new Prices($("prices"), market, tape);

let room = null;
let hasJoined = false;
let media = null;
let iceServers = [];
let endRoom = () => {};

class Peer {
  constructor(id) {
    this.id = id;
    this.work = Promise.resolve();
    this.connection = new RTCPeerConnection({ iceServers });
    this.connection.onicecandidate = ({ candidate }) =>
      candidate && say("ICE", { targetId: id, candidate: candidate.toJSON() });
    this.connection.ontrack = ({ streams: [stream] }) => (this.video.srcObject = stream);
    this.connection.ondatachannel = ({ channel }) => this.#use(channel);
    this.connection.onconnectionstatechange = () => {
      this.state.textContent = this.connection.connectionState;
      if (this.connection.connectionState === "failed") hangUp(id);
    };
    for (const track of media?.getTracks() ?? []) this.connection.addTrack(track, media);
    this.#show();
  }

  // What has to be done about a peer is done one after the other.
  queue(step) {
    this.work = this.work.then(() => peers.get(this.id) === this && step()).catch(notify);
  }

  async offer() {
    this.#use(this.connection.createDataChannel("market"));
    if (media === null) {
      for (const kind of ["audio", "video"]) {
        this.connection.addTransceiver(kind, { direction: "recvonly" });
      }
    }
    await this.connection.setLocalDescription();
    say("OFFER", { targetId: this.id, sdp: this.connection.localDescription.sdp });
  }

  async answer(sdp) {
    await this.connection.setRemoteDescription({ type: "offer", sdp });
    await this.connection.setLocalDescription();
    say("ANSWER", { targetId: this.id, sdp: this.connection.localDescription.sdp });
  }

  tell(content) {
    if (this.channel?.readyState === "open") this.channel.send(JSON.stringify(content));
  }

  close() {
    this.connection.close();
    for (const element of this.elements) element.remove();
  }

  #use(channel) {
    this.channel = channel;
    channel.onopen = () => this.offered && this.tell({ symbol: $("symbol").value });
    channel.onmessage = ({ data }) => watch(JSON.parse(data).symbol);
  }

  #show() {
    const figure = document.createElement("figure");
    this.video = Object.assign(document.createElement("video"), {
      autoplay: true,
      playsInline: true,
    });
    const caption = document.createElement("figcaption");
    const name = document.createElement("dt");
    caption.textContent = name.textContent = this.id.slice(0, 8);
    this.state = Object.assign(document.createElement("dd"), { textContent: "new" });
    figure.append(this.video, caption);
    $("videos").append(figure);
    $("peers").append(name, this.state);
    this.elements = [figure, name, this.state];
  }
}

function say(type, fields = {}) {
  stomp.send(`/app/signal/${room}`, { type, senderId: me, ...fields });
}

function meet(id) {
  hangUp(id);
  const peer = new Peer(id);
  peers.set(id, peer);
  return peer;
}

function hangUp(id) {
  peers.get(id)?.close();
  peers.delete(id);
}

function hear({ type, senderId, sdp, candidate }) {
  if (senderId === me) {
    if (type === "JOIN") {
      hasJoined = true;
      show("connected", `in ${room}`);
    }
    return;
  }
  const peer = peers.get(senderId);
  if (type === "JOIN" && hasJoined) {
    const newcomer = meet(senderId);
    newcomer.offered = true; // whoever is there already says what is watched
    newcomer.queue(() => newcomer.offer());
  } else if (type === "OFFER") {
    const caller = meet(senderId);
    caller.queue(() => caller.answer(sdp));
  } else if (type === "ANSWER") {
    peer?.queue(() => peer.connection.setRemoteDescription({ type: "answer", sdp }));
  } else if (type === "ICE") {
    peer?.queue(() => peer.connection.addIceCandidate(candidate));
  } else if (type === "LEAVE") {
    hangUp(senderId);
  }
}

async function join() {
  room = $("room").value;
  try {
    media = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  } catch (error) {
    notify(`nobody will see or hear you: ${error.message}`);
  }
  $("mine").srcObject = media;
  iceServers = await readIceServers();
  endRoom = stomp.subscribe(`/topic/signaling/${room}`, (_, signal) => hear(signal));
  say("JOIN");
}

async function readIceServers() {
  const response = await request("api/v1/ice-servers");
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message ?? response.statusText);
  return answer.iceServers;
}

function leave() {
  say("LEAVE");
  endRoom();
  room = null;
  hasJoined = false;
  for (const id of [...peers.keys()]) hangUp(id);
  for (const track of media?.getTracks() ?? []) track.stop();
  $("mine").srcObject = media = null;
}

function watch(symbol) {
  $("symbol").value = symbol;
  prices.show(symbol);
  market.follow([symbol]);
}

function notify(problem) {
  $("notice").textContent = problem.message ?? problem;
  $("notice").hidden = false;
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state").querySelector("dd").textContent = text;
}

function turn(isIn) {
  $("join").hidden = isIn;
  $("leave").hidden = !isIn;
  $("room").disabled = isIn;
}

$("call").onsubmit = (event) => {
  event.preventDefault();
  turn(true);
  join().catch(notify);
};
$("leave").onclick = () => {
  leave();
  turn(false);
  show("connected", "connected");
};
$("watch").onsubmit = (event) => {
  event.preventDefault();
  watch($("symbol").value);
  for (const peer of peers.values()) peer.tell({ symbol: $("symbol").value });
};
addEventListener("pagehide", () => room && leave());

stomp.addEventListener("connected", () => {
  show("connected", "connected");
  $("state").title = "";
  if (room !== null) {
    hasJoined = false; // the gateway that is there now knows of nobody
    say("JOIN");
  }
});
stomp.addEventListener("lost", ({ detail }) => {
  show("lost", "reconnecting");
  $("state").title = detail;
});
stomp.addEventListener("refused", ({ detail }) => notify(detail));

const asked = new URLSearchParams(location.search);
$("room").value = asked.get("room") ?? $("room").value;
watch(asked.get("symbol") ?? $("symbol").value);
stomp.open();
