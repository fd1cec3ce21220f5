// From bytes over cells to paths of an SVG: memplan/report/page/drawing.py, number by number.

const DENSITY = 2;
const NOTHING = -1;

function columns(segments, totals, begin, end, width) {
  const count = width * DENSITY;
  const chosen = new Array(count).fill(NOTHING);
  for (const segment of segments) {
    const scale = (segment.right - segment.left) / (segment.stop - segment.first);
    for (let cell = segment.first; cell < segment.stop; cell++) {
      const left = (segment.left + (cell - segment.first) * scale - begin) / (end - begin) * count;
      const right = (segment.left + (cell + 1 - segment.first) * scale - begin) / (end - begin) * count;
      const first = Math.floor(left);
      const stop = Math.min(Math.max(first + 1, Math.ceil(right)), count);
      for (let column = Math.max(first, 0); column < stop; column++) {
        const before = chosen[column];
        if (before === NOTHING || totals[cell] > totals[before]) chosen[column] = cell;
      }
    }
  }
  return chosen;
}

function number(value) {
  const tenths = Math.floor(value * 10 + 0.5);
  const [whole, rest] = [Math.floor(Math.abs(tenths) / 10), Math.abs(tenths) % 10];
  return `${tenths < 0 ? "-" : ""}${whole}${rest ? `.${rest}` : ""}`;
}

function levels(cells, values, low, high, height) {
  const span = high - low;
  return cells.map((cell) =>
    cell === NOTHING ? null : Math.min(Math.max(values[cell] - low, 0), span) / span * height);
}

function steps(ups, left, bottom) {
  const found = [];
  let column = 0;
  let open = false;
  while (column < ups.length) {
    const up = ups[column] === null ? "" : number(bottom - ups[column]);
    const begin = open ? "" : number(left + column / DENSITY);
    do column++;
    while (column < ups.length && (ups[column] === null ? "" : number(bottom - ups[column])) === up);
    if (up || open) found.push([begin, number(left + column / DENSITY), up]);
    open = Boolean(up);
  }
  if (open) found.push(["", "", ""]);
  return found;
}

function area(ups, left, bottom) {
  const parts = [];
  for (const [begin, end, up] of steps(ups, left, bottom)) {
    if (up && !begin) parts.push(`V${up}H${end}`);
    else if (up) parts.push(`M${begin} ${bottom}V${up}H${end}`);
    else if (parts.length) parts.push(`V${bottom}Z`);
  }
  return parts.join("");
}

function line(ups, left, bottom) {
  return steps(ups, left, bottom)
    .filter(([, , up]) => up)
    .map(([begin, end, up]) => (begin ? `M${begin} ${up}H${end}` : `V${up}H${end}`))
    .join("");
}

const UNITS = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];

function ticks(low, high, most = 6) {
  const [unit, name] = UNITS.find(([size]) => high >= size) || [1, "B"];
  const step = roundStep(Math.max((high - low) / unit / most, 1 / unit));
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const last = Math.floor(high / (step * unit));
  const found = [];
  for (let each = Math.ceil(low / (step * unit)); each <= last; each++) {
    found.push([each * step * unit, `${(each * step).toFixed(places)} ${name}`]);
  }
  return found;
}

function roundStep(least) {
  for (let exponent = -12; exponent < 40; exponent++) {
    for (const factor of [1, 2, 5]) {
      const step = Number(`${factor}e${exponent}`);
      if (step >= least * 0.999999) return step;
    }
  }
  return least;
}
