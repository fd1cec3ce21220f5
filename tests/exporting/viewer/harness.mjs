// node harness.mjs MemoryViz.js SNAPSHOT... : opens each snapshot in PyTorch's memory viewer, without a browser, and
// prints one line of JSON for each: what the viewer makes of it, and which of its views fail.

import {readFileSync} from 'node:fs';
import {register} from 'node:module';
import {resolve} from 'node:path';
import {pathToFileURL} from 'node:url';

register('./hooks.mjs', import.meta.url);

globalThis.window = {
  requestAnimationFrame: callback => callback(),
  addEventListener() {},
  innerWidth: 1024,
  innerHeight: 768,
};
globalThis.document = {addEventListener() {}, createElement: () => ({click() {}, style: {}})};
const print = console.log;
console.log = () => {};

const [viewerFile, ...snapshotFiles] = process.argv.slice(2);
const viewer = await import(pathToFileURL(resolve(viewerFile)).href);
const page = await import('./d3.mjs');

const STATES = 40;

/** What the view of segments and blocks says of some events, evenly spaced: the bytes behind each of them. */
function states(div) {
  const texts = [...div.descendants('pre')];
  const events = texts.filter(text => text.datum?.action !== undefined);
  const shown = texts.find(text => text.datum === undefined);
  const every = Math.max(1, Math.floor(events.length / STATES));
  return events
    .filter((_event, index) => index % every === 0)
    .map(text => {
      page.event.target = text;
      text.listeners.mousedown.call(text, {target: text});
      const found = /\((\d+) bytes\) allocated \/ .*\((\d+) bytes\) reserved/.exec(shown.textContent);
      return {
        action: text.datum.action,
        time_us: text.datum.time_us,
        allocated_bytes: Number(found[1]),
        reserved_bytes: Number(found[2]),
      };
    });
}

function largest(values) {
  return values.reduce((most, value) => Math.max(most, value), 0);
}

for (const file of snapshotFiles) {
  const bytes = readFileSync(file);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const snapshot = viewer.unpickle(buffer);
  viewer.annotate_snapshot(snapshot);
  const data = viewer.process_alloc_data(snapshot, 0, false, 1e9);
  const drawn = viewer.process_alloc_data(snapshot, 0, false, 50); // the rest of them in one summarised band

  const failed = {};
  let clicked = [];
  const padded = Buffer.concat([bytes, Buffer.alloc((3 - (bytes.length % 3)) % 3)]);
  const files = [{name: file, base64: padded.toString('base64')}];
  for (const view of Object.keys(viewer.kinds)) {
    try {
      viewer.add_local_files(files, view);
      const choice = page.elements('select')[0];
      choice.selectedIndex = choice.options.length - 1; // the file that was added last
      choice.listeners.change();
      const div = page.elements('div').findLast(each => each.parent.tag === 'body');
      if (div.children.length === 0) failed[view] = 'drew nothing';
      if (view === 'Allocator State History') clicked = states(div);
    } catch (error) {
      failed[view] = String(error.stack);
    }
  }
  print(
    JSON.stringify({
      peak_bytes: largest(data.max_at_time),
      summarised_peak_bytes: largest(drawn.max_at_time),
      first_bytes: data.max_at_time[0],
      tensors: data.elements_length,
      categories: snapshot.categories,
      views: Object.keys(viewer.kinds),
      failed,
      states: clicked,
      texts: Array.from({length: data.elements_length}, (_, id) => data.context_for_id(id)),
    }),
  );
}
