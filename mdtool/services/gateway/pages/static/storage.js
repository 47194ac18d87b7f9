// Values that the browser stores. Where it refuses to, they last as long as the page.

export function store(area, name, value) {
  try {
    globalThis[area].setItem(`mdtool.${name}`, JSON.stringify(value));
  } catch {
    // as said above
  }
}

// The stored value, null where there is none.
export function stored(area, name) {
  try {
    return JSON.parse(globalThis[area].getItem(`mdtool.${name}`));
  } catch {
    return null;
  }
}
