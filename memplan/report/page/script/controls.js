// What a reader does: zoom, cursor, keys, theme. `state` says what is shown; everything is drawn from it.

const WHEEL = 1.0016;
const KEY_ZOOM = 1.6;
const FEWEST = 12; // events in view, when it is nearest

const state = { axis: view.axes[0], from: 0, to: view.axes[0].length, place: null, fit: false };
let frame = null;

function widthOfCharts() {
  return Math.max(Math.floor(sides[0].svg.parentElement.clientWidth), 300);
}

function redraw(width = widthOfCharts()) {
  const { axis, from, to } = state;
  let [low, high] = [0, view.frame.high];
  if (state.fit) [low, high] = heightInView();
  frame = new Frame(axis, from, to, width, low, high);
  for (const side of sides) draw(side, frame);
  showCursor();
  for (const button of document.querySelectorAll("[data-action=reset]")) button.disabled = from === 0 && to === axis.length;
}

// The least and the most bytes in view, with some room.
function heightInView() {
  let [low, high] = [Infinity, 0];
  for (const side of sides) {
    const spread = state.axis.spreads[side.place];
    const lists = [[spread.predicted, side.totals]];
    if (side.course) lists.push([spread.measured, side.course.allocated_bytes]);
    if (side.reserved) lists.push([spread.predicted, side.reserved]);
    for (const [segments, totals] of lists) {
      for (const cell of columns(segments, totals, state.from, state.to, 400)) {
        if (cell === NOTHING) continue;
        low = Math.min(low, totals[cell]);
        high = Math.max(high, totals[cell]);
      }
    }
  }
  if (!(low < high)) return [Math.max(0, high - 1), high + 1];
  const room = (high - low) * 0.06;
  return [Math.max(0, Math.floor(low - room)), Math.ceil(high + room)];
}

function zoomTo(from, to) {
  const { length } = state.axis;
  const least = length / Math.max(1, ...sides.map((side) => side.totals.length)) * FEWEST;
  const width = Math.min(Math.max(to - from, Math.min(least, length)), length);
  const middle = (from + to) / 2;
  const begin = Math.min(Math.max(middle - width / 2, 0), length - width);
  state.from = width === length ? 0 : begin;
  state.to = width === length ? length : begin + width;
  redraw();
}

function zoomBy(factor, around) {
  const { from, to } = state;
  zoomTo(around - (around - from) / factor, around + (to - around) / factor);
}

function moveTo(place) {
  state.place = Math.min(Math.max(place, 0), state.axis.length);
  showCursor();
}

// The cell under the cursor; by itself, that of the peak.
function cellOf(side) {
  const { predicted } = state.axis.spreads[side.place];
  if (state.place === null) return view.peaks[side.place];
  if (state.side === side && state.cell !== null) return state.cell;
  return cellAt(predicted, state.place);
}

function showCursor() {
  for (const side of sides) {
    const overlay = side.svg.querySelector(".overlay");
    overlay.replaceChildren();
    const cell = cellOf(side);
    const { predicted } = state.axis.spreads[side.place];
    if (cell === null) continue;
    const place = state.place === null ? middleOf(predicted, cell) : state.place;
    fill(side, state.axis, cell, place);
    if (state.place !== null && place >= frame.from && place <= frame.to) {
      overlay.append(path(`M${number(frame.x(place))} ${frame.top}V${frame.bottom}`, "cursor"));
    }
    if (state.drag && state.drag.now !== null) {
      const [a, b] = [state.drag.start, state.drag.now].sort((m, n) => m - n).map((each) => frame.x(each));
      overlay.append(element("rect", { x: a, y: frame.top, width: b - a, height: PLOT_HEIGHT, class: "span" }));
    }
  }
}

// Go to a cell of a side, whatever its width in pixels is.
function stepTo(side, cell) {
  const last = side.totals.length - 1;
  state.side = side;
  state.cell = Math.min(Math.max(cell, 0), last);
  state.place = middleOf(state.axis.spreads[side.place].predicted, state.cell);
  const width = state.to - state.from;
  if (state.place < state.from || state.place > state.to) zoomTo(state.place - width / 2, state.place + width / 2);
  else showCursor();
  side.said.textContent = spoken(side, state.cell);
}

function goToPeak(side) {
  stepTo(side, view.peaks[side.place]);
}

function phaseBeside(side, cell, forward) {
  const { predicted } = state.axis.spreads[side.place];
  const now = predicted.findIndex((segment) => cell < segment.stop);
  if (forward) return now + 1 < predicted.length ? predicted[now + 1].first : side.totals.length - 1;
  if (cell > predicted[now].first) return predicted[now].first;
  return now > 0 ? predicted[now - 1].first : 0;
}

function reset() {
  state.from = 0;
  state.to = state.axis.length;
  state.place = state.cell = state.side = null;
  redraw();
}

function setFit(fit) {
  state.fit = fit;
  for (const button of document.querySelectorAll("[data-action=fit]")) button.setAttribute("aria-pressed", String(fit));
  redraw();
}

function placeOf(side, event) {
  const box = side.svg.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * frame.width;
  const share = Math.min(Math.max((x - LEFT) / frame.plot, 0), 1);
  return frame.from + share * (frame.to - frame.from);
}

function listen(side) {
  const { svg } = side;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    state.drag = { start: placeOf(side, event), now: null, x: event.clientX };
    svg.setPointerCapture(event.pointerId);
    svg.focus({ preventScroll: true });
  });
  svg.addEventListener("pointermove", (event) => {
    state.side = state.cell = null;
    if (state.drag && Math.abs(event.clientX - state.drag.x) > 4) state.drag.now = placeOf(side, event);
    moveTo(placeOf(side, event));
  });
  svg.addEventListener("pointerup", (event) => {
    const drag = state.drag;
    state.drag = null;
    state.side = state.cell = null;
    if (drag && drag.now !== null) zoomTo(Math.min(drag.start, drag.now), Math.max(drag.start, drag.now));
    else moveTo(placeOf(side, event));
  });
  svg.addEventListener("pointercancel", () => {
    state.drag = null;
    showCursor();
  });
  svg.addEventListener("pointerleave", (event) => {
    if (state.drag || event.pointerType !== "mouse" || document.activeElement === svg) return;
    state.place = null;
    showCursor();
  });
  svg.addEventListener("dblclick", reset);
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== svg) return; // the page scrolls
    event.preventDefault();
    const pixels = event.deltaMode === 1 ? 16 : 1;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      const shift = event.deltaX * pixels / frame.plot * (state.to - state.from);
      zoomTo(state.from + shift, state.to + shift);
    } else zoomBy(WHEEL ** (-event.deltaY * pixels), placeOf(side, event));
  }, { passive: false });
  svg.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !press(side, event)) return;
    event.preventDefault();
  });
}

// True where a key means something.
function press(side, event) {
  const cell = cellOf(side) ?? 0;
  const middle = state.place !== null ? state.place : middleOf(state.axis.spreads[side.place].predicted, cell);
  const shift = (state.to - state.from) / 8;
  const does = {
    ArrowLeft: () => (event.shiftKey ? zoomTo(state.from - shift, state.to - shift) : stepTo(side, cell - 1)),
    ArrowRight: () => (event.shiftKey ? zoomTo(state.from + shift, state.to + shift) : stepTo(side, cell + 1)),
    PageUp: () => stepTo(side, phaseBeside(side, cell, false)),
    PageDown: () => stepTo(side, phaseBeside(side, cell, true)),
    Home: () => stepTo(side, 0),
    End: () => stepTo(side, side.totals.length - 1),
    "+": () => zoomBy(KEY_ZOOM, middle),
    "=": () => zoomBy(KEY_ZOOM, middle),
    "-": () => zoomBy(1 / KEY_ZOOM, middle),
    0: reset,
    Escape: reset,
    p: () => goToPeak(side),
    f: () => setFit(!state.fit),
  }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (does) does();
  return Boolean(does);
}

const actions = {
  in: () => zoomBy(KEY_ZOOM, (state.from + state.to) / 2),
  out: () => zoomBy(1 / KEY_ZOOM, (state.from + state.to) / 2),
  reset,
  peak: () => {
    const highest = sides.reduce((a, b) => (b.totals[b.peak] > a.totals[a.peak] ? b : a));
    goToPeak(highest);
    zoomTo(state.place - state.axis.length / 60, state.place + state.axis.length / 60);
  },
  fit: () => setFit(!state.fit),
};

function chooseAxis(name) {
  state.axis = view.axes.find((axis) => axis.name === name) || view.axes[0];
  reset();
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function start() {
  document.documentElement.classList.add("live");
  for (const article of document.querySelectorAll(".side")) {
    const side = sides[Number(article.dataset.side)];
    side.svg = article.querySelector(".timeline");
    side.readout = article.querySelector(".readout");
    side.list = article.querySelector(".biggest");
    side.said = article.querySelector("[role=status]");
    side.svg.setAttribute("tabindex", "0");
    side.svg.setAttribute("role", "application");
    side.svg.setAttribute("aria-roledescription", "chart");
    listen(side);
  }
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", actions[button.dataset.action]);
  }
  for (const box of document.querySelectorAll("input[name=axis]")) {
    box.addEventListener("change", () => chooseAxis(box.value));
  }
  const theme = document.querySelector(".theme");
  const told = () => (theme.textContent = isDark() ? "Light" : "Dark");
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    told();
  });
  told();
  let asked = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(() => redraw());
  }).observe(document.querySelector(".chart"));
  const folded = [];
  addEventListener("beforeprint", () => {
    folded.push(...document.querySelectorAll("details:not([open])"));
    for (const each of folded) each.open = true;
    redraw(view.frame.width);
  });
  addEventListener("afterprint", () => {
    for (const each of folded.splice(0)) each.open = false;
    redraw();
  });
  redraw();
}

start();
