// The document that the page embeds, and what follows from it for each side.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const profile = read("memplan-data");
const view = read("memplan-view");

// Characters that no text should have become U+FFFD, as in markup.py.
const FORBIDDEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]|\p{Surrogate}/gu;
const clean = (text) => (typeof text === "string" ? text.replace(FORBIDDEN, "\ufffd") : text);

const spaced = (name) => name.replaceAll("_", " ");
const thousands = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ",");

function human(count) {
  const found = UNITS.find(([unit]) => Math.abs(count) >= unit);
  if (!found) return `${sign(count)}${thousands(Math.abs(count))} B`;
  // To even hundredths, as Python rounds: 1.125 MiB is 1.12 MiB. A power of two divides without error.
  const exact = Math.abs(count) * 100 / found[0];
  let hundredths = Math.floor(exact);
  if (exact - hundredths > 0.5 || (exact - hundredths === 0.5 && hundredths % 2)) hundredths++;
  const part = String(hundredths % 100).padStart(2, "0");
  return `${sign(count)}${thousands(Math.floor(hundredths / 100))}.${part} ${found[1]}`;
}

const sign = (count) => (count < 0 ? "-" : "");

class Side {
  constructor(data, place) {
    this.place = place;
    this.name = clean(data.name);
    this.timeline = data.timeline;
    for (const table of ["modules", "operations", "dtypes", "reasons"]) {
      this.timeline[table] = this.timeline[table].map(clean);
    }
    this.tensors = data.timeline.tensors;
    this.course = data.course;
    this.reserved = view.reserved[place];
    this.stack();
  }

  // Bytes by component in every cell: cell 0 is before the first event, cell n + 1 behind event n.
  stack() {
    const { events, components } = this.timeline;
    const { component, size_bytes: sizes, born } = this.tensors;
    this.components = view.stacked.filter((name) => components.includes(name));
    const rank = components.map((name) => this.components.indexOf(name));
    this.levels = this.components.map(() => new Float64Array(events.length + 1));
    this.totals = new Float64Array(events.length + 1);
    const now = new Array(this.components.length).fill(0);
    born.forEach((event, number) => {
      if (event < 0) now[rank[component[number]]] += sizes[number];
    });
    const keep = (cell) => {
      let total = 0;
      now.forEach((size, place) => {
        this.levels[place][cell] = size;
        total += size;
      });
      this.totals[cell] = total;
    };
    keep(0);
    events.forEach((event, number) => {
      const tensor = event < 0 ? ~event : event;
      now[rank[component[tensor]]] += event < 0 ? -sizes[tensor] : sizes[tensor];
      keep(number + 1);
    });
    let below = null; // of each stacked area, its upper edge
    this.edges = this.levels.map((level) => {
      below = below ? level.map((size, cell) => size + below[cell]) : level;
      return below;
    });
    this.peak = this.totals.indexOf(this.totals.reduce((most, size) => Math.max(most, size), 0));
  }

  text(table, column, number) {
    return this.timeline[table][this.tensors[column][number]];
  }

  module(number) {
    return this.text("modules", "module", number);
  }

  title(number, module = this.module(number)) {
    const shape = `[${this.text("shapes", "shape", number).join(", ")}]`;
    const words = [module, this.text("operations", "operation", number), shape, this.text("dtypes", "dtype", number)];
    return words.filter(Boolean).join(" ");
  }

  alive(cell) {
    const event = cell - 1;
    const { born, died } = this.tensors;
    const found = [];
    for (let number = 0; number < born.length; number++) {
      if (born[number] <= event && (died[number] === null || died[number] > event)) found.push(number);
    }
    return found;
  }

  // The biggest tensors alive in a cell, those of alike layers together.
  biggest(cell, most) {
    const groups = new Map();
    for (const number of this.alive(cell)) {
      const starred = this.module(number).replace(/\.\d+(?=\.|$)/g, ".*");
      const size = this.tensors.size_bytes[number];
      const component = this.text("components", "component", number);
      const reason = this.text("reasons", "reason", number);
      const title = this.title(number, starred);
      const key = JSON.stringify([title, size, component, reason]);
      const group = groups.get(key) || { title, first: number, size, component, reason, count: 0 };
      group.count++;
      groups.set(key, group);
    }
    return [...groups.values()]
      .sort((a, b) => b.size * b.count - a.size * a.count)
      .slice(0, most)
      .map((group) => ({ ...group, title: group.count > 1 ? group.title : this.title(group.first) }));
  }

  // What is born or freed when a cell begins: [verb, number of the tensor], or nothing.
  change(cell) {
    if (!cell) return null;
    const event = this.timeline.events[cell - 1];
    return event < 0 ? ["freed", ~event] : ["born", event];
  }

  maker(cell) {
    const change = this.change(cell);
    if (!change) return "what is there when it begins";
    return change[0] === "born" ? this.title(change[1]) : `freed: ${this.title(change[1])}`;
  }
}

const sides = profile.sides.map((data, place) => new Side(data, place));
