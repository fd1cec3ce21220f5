// How the viewer is loaded: what it imports from the network is d3.mjs, and its inner functions can be imported too.

import {readFile} from 'node:fs/promises';
import {fileURLToPath} from 'node:url';

const INNER = ['annotate_snapshot', 'unpickle', 'process_alloc_data', 'kinds'];

export async function resolve(specifier, context, next) {
  if (/^(https?:|d3)/.test(specifier)) {
    return {url: new URL('./d3.mjs', import.meta.url).href, shortCircuit: true};
  }
  return next(specifier, context);
}

export async function load(url, context, next) {
  if (!url.startsWith('file:') || !url.endsWith('.js')) {
    return next(url, context);
  }
  let source = await readFile(fileURLToPath(url), 'utf8');
  if (/\bfunction annotate_snapshot\(/.test(source)) {
    source += `\nexport {${INNER.join(', ')}};\n`;
  }
  return {format: 'module', source, shortCircuit: true};
}
