// What is alive under the cursor, in words and numbers: memplan/report/page/readout.py.

const BIGGEST = 6;

function html(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

const span = (kind, ...inside) => html("span", { class: kind }, ...inside);

function size(count, signed = false) {
  const unit = Math.abs(count) === 1 ? "byte" : "bytes";
  const title = `${sign(count)}${thousands(Math.abs(count))} ${unit}`;
  return html("data", { value: count, title }, (signed && count > 0 ? "+" : "") + human(count));
}

function swatch(component) {
  const square = element("rect", { width: 14, height: 14, fill: `url(#c-${component})` });
  return element("svg", { class: "swatch", viewBox: "0 0 14 14", "aria-hidden": "true" }, square);
}

function position(side, cell) {
  const { label, first, stop } = phaseOf(side, cell);
  if (!cell) return `before ${label} begins`;
  const begin = Math.max(first, 1);
  return `${label}, event ${thousands(cell - begin + 1)} of ${thousands(stop - begin)}`;
}

function measuredAt(side, axis, place) {
  if (!side.course) return null;
  const found = cellAt(axis.spreads[side.place].measured, place);
  return found === null ? null : side.course.allocated_bytes[found];
}

function fill(side, axis, cell, place) {
  const atPeak = cell === view.peaks[side.place];
  const where = html("p", { class: "where" }, html("strong", {}, atPeak ? "At the peak" : "Here"), " ");
  where.append(span("place", position(side, cell)));
  const rows = [];
  side.components.forEach((name, number) => {
    const held = side.levels[number][cell];
    const head = html("th", { scope: "row" }, swatch(name), " ", spaced(name));
    if (held) rows.unshift(html("tr", {}, head, html("td", {}, size(held))));
  });
  const total = side.totals[cell];
  const sums = [row("predicted", size(total), "total")];
  const seen = measuredAt(side, axis, place);
  if (seen !== null) {
    sums.push(row("measured", size(seen), "total"));
    sums.push(row("difference", size(total - seen, true), total === seen ? "same" : "differs"));
  }
  if (side.reserved) sums.push(row("reserved", size(side.reserved[cell]), "held-by-allocator"));
  const caption = html("caption", { class: "hidden" }, "Alive, by component");
  side.readout.replaceChildren(
    where,
    changeOf(side, cell),
    html("table", {}, caption, html("tbody", { class: "components" }, ...rows), html("tfoot", {}, ...sums)),
  );
  side.list.replaceChildren(...side.biggest(cell, BIGGEST).map(entry));
}

const row = (name, value, kind) => html("tr", { class: kind }, html("th", { scope: "row" }, name), html("td", {}, value));

function changeOf(side, cell) {
  const change = side.change(cell);
  if (!change) return html("p", { class: "change" }, span("tensor", side.maker(cell)));
  const [verb, tensor] = change;
  const bytes = size(side.tensors.size_bytes[tensor]);
  return html("p", { class: "change" }, `${verb}: `, span("tensor", side.title(tensor)), ", ", bytes);
}

function entry({ title, size: bytes, count, component, reason }) {
  const sizes = span("sizes", size(bytes * count));
  if (count > 1) sizes.append(span("copies", ` = ${thousands(count)} x `, size(bytes)));
  const why = span("reason", `${spaced(component)}: ${spaced(reason)}`);
  return html("li", {}, swatch(component), html("span", {}, sizes, " ", why), span("tensor", title));
}

// The moment in one sentence, for those who hear the page.
function spoken(side, cell) {
  const change = side.change(cell);
  const what = change ? `${change[0]} ${side.title(change[1])}` : side.maker(cell);
  return `${side.name}, ${position(side, cell)}: ${human(side.totals[cell])} alive, ${what}`;
}
