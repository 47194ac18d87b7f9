// Drawing at a pace that eyes can follow, however fast data arrives.

const EVERY_MS = 100;

// Returns what asks for a drawing: at once after a pause, else with the next that is due.
export function paced(draw) {
  let isDue = false;
  let drawnAt = -EVERY_MS;
  return () => {
    if (isDue) {
      return;
    }
    isDue = true;
    const wait = Math.max(0, drawnAt + EVERY_MS - performance.now());
    setTimeout(() => requestAnimationFrame(() => {
      isDue = false;
      drawnAt = performance.now();
      draw();
    }), wait);
  };
}
