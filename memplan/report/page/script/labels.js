// Where text stands: memplan/report/page/labels.py.

const CHARACTER = 6.6;
const GAP = 10;
const LINE = 15;
const BLOCK = 8;

const count = (text) => [...text].length; // characters, not halves of them
const widthOf = (text) => count(text) * CHARACTER;

function packed(wanted, left, right, rows) {
  const ends = new Array(rows).fill(left - GAP);
  return wanted.map(([text, x]) => {
    const half = widthOf(text) / 2;
    const middle = Math.min(Math.max(x, left + half), right - half);
    const row = ends.findIndex((end) => middle - half >= end + GAP);
    if (row < 0 || middle - half < left) return null;
    ends[row] = middle + half;
    return { text, x: middle, row };
  });
}

function wrapped(text, width) {
  const most = Math.max(Math.floor(width / CHARACTER), 8);
  const lines = [];
  for (let word of text.split(" ")) {
    if (lines.length && count(lines[lines.length - 1]) + 1 + count(word) <= most) {
      lines[lines.length - 1] += ` ${word}`;
      continue;
    }
    for (; count(word) > most; word = [...word].slice(most).join("")) lines.push([...word].slice(0, most).join(""));
    lines.push(word);
  }
  return lines;
}

function inside(text, lower, upper, height = 15) {
  const lows = blocks(lower, Math.max);
  const highs = blocks(upper, Math.min);
  const need = Math.ceil(Math.floor(widthOf(text) * DENSITY + 8) / BLOCK);
  let best = height;
  let place = null;
  for (let first = 1; first + need < lows.length; first++) {
    let low = 0;
    let high = Infinity;
    for (let block = first; block < first + need; block++) {
      if (lows[block] === null || highs[block] === null) {
        high = -1;
        break;
      }
      low = Math.max(low, lows[block]);
      high = Math.min(high, highs[block]);
    }
    if (high - low > best) {
      best = high - low;
      place = [(first + need / 2) * BLOCK / DENSITY, (low + high) / 2];
    }
  }
  return place;
}

function blocks(values, pick) {
  const chosen = [];
  for (let first = 0; first + BLOCK <= values.length; first += BLOCK) {
    const part = values.slice(first, first + BLOCK);
    chosen.push(part.includes(null) ? null : pick(...part));
  }
  return chosen;
}
