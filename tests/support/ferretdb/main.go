// A server of MongoDB's protocol for tests: FerretDB over a folder of SQLite files, on one port.
//
// FerretDB reads a document and then writes it, and what others write in between is lost. MongoDB
// updates a document in one step. So clients reach it through a relay, which lets one request at a
// time write.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

const (
	opMsg        = 2013
	headerBytes  = 16
	commandStart = headerBytes + 4 + 1 + 4 + 1 // flags, kind of section, size of document, type
)

var writing sync.Mutex

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: ferretdb HOST:PORT FOLDER")
		os.Exit(2)
	}
	address, folder := os.Args[1], os.Args[2]
	inner := filepath.Join(folder, "socket")
	_ = os.Remove(inner)
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{Unix: inner},
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Handler:   "sqlite",
		SQLiteURL: "file:" + folder + "/",
	})
	check(err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Ends with what started it, however that ends.
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		stop()
	}()
	listener, err := net.Listen("tcp", address)
	check(err)
	go func() {
		for {
			client, err := listener.Accept()
			check(err)
			go relay(client, inner)
		}
	}()
	_ = server.Run(ctx)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// relay passes requests on, and the one answer of each back, until either side ends.
func relay(client net.Conn, inner string) {
	defer client.Close()
	server, err := net.Dial("unix", inner)
	if err != nil {
		return
	}
	defer server.Close()
	for {
		request, err := message(client)
		if err != nil {
			return
		}
		answer, err := exchange(server, request)
		if err != nil {
			return
		}
		if _, err = client.Write(answer); err != nil {
			return
		}
	}
}

func exchange(server net.Conn, request []byte) ([]byte, error) {
	if writes(request) {
		writing.Lock()
		defer writing.Unlock()
	}
	if _, err := server.Write(request); err != nil {
		return nil, err
	}
	return message(server)
}

func message(from io.Reader) ([]byte, error) {
	size := make([]byte, 4)
	if _, err := io.ReadFull(from, size); err != nil {
		return nil, err
	}
	whole := make([]byte, binary.LittleEndian.Uint32(size))
	copy(whole, size)
	_, err := io.ReadFull(from, whole[4:])
	return whole, err
}

func writes(request []byte) bool {
	if binary.LittleEndian.Uint32(request[12:]) != opMsg {
		return false
	}
	name, _, _ := bytes.Cut(request[commandStart:], []byte{0})
	switch string(name) {
	case "insert", "update", "delete", "findAndModify":
		return true
	}
	return false
}
