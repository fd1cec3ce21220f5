// The charts of the sides, drawn anew for what is in view: memplan/report/page/timeline_chart.py and frame.py.

const LEFT = 68;
const RIGHT = 14;
const PLOT_HEIGHT = 380;
const ROWS = 3;

function element(name, attributes = {}, ...inside) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside.filter((each) => each !== null));
  return made;
}

const group = (kind, ...inside) => element("g", { class: kind }, ...inside);
const path = (d, kind, more = {}) => element("path", { d, ...(kind ? { class: kind } : {}), ...more });

// What the charts share: `from` to `to` of an axis are in view, `low` to `high` bytes.
class Frame {
  constructor(axis, from, to, width, low, high) {
    Object.assign(this, { axis, from, to, width, low, high });
    this.plot = width - LEFT - RIGHT;
    this.lines = Math.max(1, ...sides.map((side) => peakText(side, this.plot).length));
    this.rows = Math.max(1, ...sides.flatMap((side) => this.labels(side, 0, axis.length).map((each) => (each.label ? each.label.row + 1 : 1))));
    if (axis.unit) this.rows = Math.max(this.rows, 1);
    this.top = 16 + this.lines * LINE;
    this.bottom = this.top + PLOT_HEIGHT;
    this.height = this.bottom + 10 + this.rows * LINE + (axis.unit ? LINE : 0);
  }

  x(place) {
    return LEFT + (place - this.from) / (this.to - this.from) * this.plot;
  }

  y(size) {
    return this.bottom - (size - this.low) / (this.high - this.low) * PLOT_HEIGHT;
  }

  // The names of the phases in view, each with its place and, where there is room, its label.
  labels(side, from, to) {
    const wanted = [];
    for (const { label, left, right } of this.axis.spreads[side.place].predicted) {
      const [a, b] = [Math.max(left, from), Math.min(right, to)];
      if (b > a) wanted.push([label, LEFT + ((a + b) / 2 - from) / (to - from) * this.plot]);
    }
    const found = packed(wanted, LEFT, LEFT + this.plot, ROWS);
    return wanted.map(([, x], place) => ({ x, label: found[place] }));
  }
}

function peakText(side, plot) {
  const cell = view.peaks[side.place];
  const phase = phaseOf(side, cell);
  return [`peak ${human(side.totals[cell])} in ${phase.label}`, ...wrapped(side.maker(cell), plot)];
}

function phaseOf(side, cell) {
  const { predicted } = view.axes[0].spreads[side.place];
  return predicted.find((segment) => cell < segment.stop) || predicted[predicted.length - 1];
}

function draw(side, frame) {
  const { predicted, measured } = frame.axis.spreads[side.place];
  const drawn = columns(predicted, side.totals, frame.from, frame.to, frame.plot);
  const bands = side.edges.map((edge) => levels(drawn, edge, frame.low, frame.high, PLOT_HEIGHT));
  const areas = side.components.map((name, place) =>
    path(area(bands[place], LEFT, frame.bottom), "area", { fill: `url(#c-${name})`, "data-component": name }));
  const title = side.svg.querySelector("title");
  side.svg.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
  side.svg.replaceChildren(
    title,
    scaleOf(frame),
    group("areas", ...areas.reverse()),
    ...(bands.length ? [path(line(bands[bands.length - 1], LEFT, frame.bottom), "outline")] : []),
    dividers(predicted, frame),
    ...reservedLine(side, predicted, frame),
    ...measuredLine(side, measured, frame),
    ...limitOf(frame),
    bandNames(side, bands, frame),
    phaseNames(side, frame),
    ...peakMark(side, frame),
    group("overlay"),
  );
}

function scaleOf(frame) {
  const parts = [];
  for (const [size, text] of ticks(frame.low, frame.high)) {
    const y = number(frame.y(size));
    parts.push(path(`M${LEFT} ${y}H${LEFT + frame.plot}`, "grid"));
    const where = { x: LEFT - 8, y, class: "tick", "text-anchor": "end", "dominant-baseline": "central" };
    parts.push(element("text", where, text));
  }
  return group("scale", ...parts);
}

function dividers(predicted, frame) {
  const edges = [...new Set(predicted.slice(1).map((segment) => segment.left))].sort((a, b) => a - b);
  const within = edges.filter((edge) => frame.from < edge && edge < frame.to);
  return group("dividers", ...within.map((edge) => path(`M${number(frame.x(edge))} ${frame.top}V${frame.bottom}`)));
}

function measuredLine(side, measured, frame) {
  if (!side.course || !measured.length) return [];
  const bytes = side.course.allocated_bytes;
  const drawn = columns(measured, bytes, frame.from, frame.to, frame.plot);
  const d = line(levels(drawn, bytes, frame.low, frame.high, PLOT_HEIGHT), LEFT, frame.bottom);
  return [path(d, "halo"), path(d, "measured")];
}

function reservedLine(side, predicted, frame) {
  if (!side.reserved) return [];
  const drawn = columns(predicted, side.reserved, frame.from, frame.to, frame.plot);
  return [path(line(levels(drawn, side.reserved, frame.low, frame.high, PLOT_HEIGHT), LEFT, frame.bottom), "reserved")];
}

function limitOf(frame) {
  const { limit, limitText } = view.frame;
  if (limit === null || limit > frame.high || limit < frame.low) return [];
  const y = number(frame.y(limit));
  const text = element("text", { x: LEFT + 8, y: Number(y) + 15, class: "on-plot" }, limitText);
  return [group("limit-of-card", path(`M${LEFT} ${y}H${LEFT + frame.plot}`, "limit"), text)];
}

function bandNames(side, bands, frame) {
  const parts = [];
  let below = new Array(frame.plot * DENSITY).fill(0);
  side.components.forEach((name, place) => {
    const found = inside(spaced(name), below, bands[place]);
    if (found) {
      const where = { x: number(LEFT + found[0]), y: number(frame.bottom - found[1]), class: "on-plot" };
      parts.push(element("text", { ...where, "text-anchor": "middle", "dominant-baseline": "central" }, spaced(name)));
    }
    below = bands[place];
  });
  return group("bands", ...parts);
}

function phaseNames(side, frame) {
  const strokes = [path(`M${LEFT} ${frame.bottom}H${LEFT + frame.plot}`, "axis")];
  const names = [];
  const shift = frame.axis.unit ? LINE : 0;
  if (shift) strokes.push(...secondTicks(frame));
  for (const { x, label } of frame.labels(side, frame.from, frame.to)) {
    if (!label || label.row >= frame.rows) continue;
    const y = frame.bottom + 16 + label.row * LINE + shift;
    if (label.row) strokes.push(path(`M${number(x)} ${frame.bottom}V${y - 10}`, "leader"));
    names.push(element("text", { x: number(label.x), y, class: "phase", "text-anchor": "middle" }, label.text));
  }
  return group("phases", ...strokes, ...names);
}

function secondTicks(frame) {
  const step = roundStep((frame.to - frame.from) / Math.max(frame.plot / 110, 2));
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const parts = [];
  const last = Math.floor(frame.to / step + 1e-9);
  for (let each = Math.ceil(frame.from / step - 1e-9); each <= last; each++) {
    const x = frame.x(each * step);
    const text = `${(each * step).toFixed(places)} s`;
    parts.push(path(`M${number(x)} ${frame.bottom}v4`, "axis"));
    if (x + widthOf(text) / 2 > LEFT + frame.plot + RIGHT) continue;
    parts.push(element("text", { x: number(x), y: frame.bottom + 16, class: "tick", "text-anchor": "middle" }, text));
  }
  return parts;
}

function peakMark(side, frame) {
  const cell = view.peaks[side.place];
  const place = middleOf(frame.axis.spreads[side.place].predicted, cell);
  if (place < frame.from || place > frame.to) return [];
  const [x, y] = [frame.x(place), frame.y(side.totals[cell])];
  const lines = peakText(side, frame.plot);
  const half = Math.max(...lines.map(widthOf)) / 2;
  const middle = number(Math.min(Math.max(x, LEFT + half), LEFT + frame.plot - half));
  const first = frame.top - 8 - (lines.length - 1) * LINE;
  const texts = lines.map((text, row) =>
    element("text", { x: middle, y: first + row * LINE, "text-anchor": "middle", class: row ? "peak" : "peak first" }, text));
  const leader = path(`M${number(x)} ${frame.top - 3}V${number(y)}`, "leader");
  const dot = element("circle", { cx: number(x), cy: number(y), r: 4, class: "dot" });
  return [group("peak-mark", ...texts, leader, dot)];
}

function middleOf(predicted, cell) {
  const segment = predicted.find((each) => cell < each.stop);
  if (!segment) return 0;
  const width = (segment.right - segment.left) / (segment.stop - segment.first);
  return segment.left + (cell - segment.first + 0.5) * width;
}

// The cell that is drawn at a place of the axis.
function cellAt(segments, place) {
  const segment = segments.find((each) => each.left <= place && place <= each.right && each.right > each.left);
  if (!segment) return null;
  const offset = (place - segment.left) / (segment.right - segment.left) * (segment.stop - segment.first);
  return Math.min(segment.first + Math.floor(offset), segment.stop - 1);
}
