// What PyTorch's memory viewer uses of d3, on a page that is never shown: elements keep their children, texts and
// listeners, and a <select> its options; everything that only changes looks is taken and forgotten.

class Element {
  constructor(tag) {
    this.tag = tag;
    this.children = [];
    this.textContent = '';
    this.listeners = {};
    this.selectedIndex = 0;
    this.datum = undefined;
    this.style = {};
    this.files = [];
  }
  get options() {
    return this.children.filter(child => child.tag === 'option');
  }
  get value() {
    if (this.tag !== 'select') return this.plainValue ?? '';
    return this.options[this.selectedIndex]?.textContent ?? '';
  }
  set value(text) {
    this.plainValue = text;
    const index = this.options.findIndex(option => option.textContent === String(text));
    if (index >= 0) this.selectedIndex = index;
  }
  append(tag) {
    const child = new Element(tag);
    child.parent = this;
    this.children.push(child);
    return child;
  }
  remove() {
    if (this.parent) this.parent.children = this.parent.children.filter(child => child !== this);
  }
  *descendants(tag) {
    for (const child of this.children) {
      if (child.tag === tag) yield child;
      yield* child.descendants(tag);
    }
  }
  getBoundingClientRect() {
    return {left: 0, top: 0, width: 1024, height: 576};
  }
  scrollIntoViewIfNeeded() {}
  click() {}
}

const evaluated = (value, element, index) =>
  typeof value === 'function' ? value.call(element, element.datum, index) : value;

class Selection {
  constructor(nodes, parent = null) {
    this.nodes_ = nodes;
    this.parent_ = parent;
  }
  node() {
    return this.nodes_[0] ?? null;
  }
  nodes() {
    return this.nodes_;
  }
  append(tag) {
    return new Selection(
      this.nodes_.map(node => {
        const child = node.append(tag);
        child.datum = node.datum;
        return child;
      }),
    );
  }
  select(tag) {
    return new Selection(this.nodes_.flatMap(node => [...node.descendants(tag)].slice(0, 1)));
  }
  selectAll(tag) {
    return new Selection(this.nodes_.flatMap(node => [...node.descendants(tag)]), this.nodes_[0]);
  }
  data(values) {
    this.values_ = values;
    return this;
  }
  enter() {
    const parent = this.parent_;
    const values = this.values_;
    return {
      append: tag =>
        new Selection(
          Array.from(values, value => {
            const child = parent.append(tag);
            child.datum = value;
            return child;
          }),
        ),
    };
  }
  datum() {
    return this.nodes_[0]?.datum;
  }
  // Values are worked out, for what they may find missing, and not kept.
  attr(_name, value) {
    this.nodes_.forEach((node, index) => evaluated(value, node, index));
    return this;
  }
  property(name, value) {
    this.nodes_.forEach(node => (node[name] = value));
    return this;
  }
  text(value) {
    this.nodes_.forEach((node, index) => (node.textContent = String(evaluated(value, node, index))));
    return this;
  }
  html(value) {
    return this.text(value);
  }
  style() {
    return this;
  }
  classed() {
    return this;
  }
  on(name, listener) {
    this.nodes_.forEach(node => (node.listeners[name] = listener));
    return this;
  }
  each(visit) {
    this.nodes_.forEach((node, index) => visit.call(node, node.datum, index));
    return this;
  }
  call(visit, ...rest) {
    visit(this, ...rest);
    return this;
  }
  remove() {
    this.nodes_.forEach(node => node.remove());
    return this;
  }
  empty() {
    return this.nodes_.length === 0;
  }
}

const page = {head: new Element('head'), body: new Element('body')};

export const event = {transform: {rescaleY: scale => scale}, preventDefault() {}, target: null, key: ''};

export function select(what) {
  return new Selection([typeof what === 'string' ? (page[what] ?? new Element(what)) : what]);
}

export const format = () => value => String(value);

/** A function that takes any call of any method and answers with itself. */
function chain() {
  const self = new Proxy(() => self, {get: (_target, name) => (name === Symbol.toPrimitive ? () => '' : self)});
  return self;
}

export const axisLeft = chain;
export const zoom = chain;
export const brushX = chain;
export const zoomIdentity = chain();

export function scaleLinear() {
  let [from, to] = [[0, 1], [0, 1]];
  const scale = x => to[0] + ((x - from[0]) / (from[1] - from[0])) * (to[1] - to[0]);
  scale.domain = values => (values ? ((from = values), scale) : from);
  scale.range = values => (values ? ((to = values), scale) : to);
  scale.invert = y => from[0] + ((y - to[0]) / (to[1] - to[0])) * (from[1] - from[0]);
  return scale;
}

/** The elements of one tag, for whoever looks at the page. */
export const elements = tag => [...page.body.descendants(tag)];
