"use strict";
// Data of the page, and what its parts share. A part reads `report.data` and the arrays after `report.ready`.
const report = {
  data: JSON.parse(document.getElementById("data").textContent),
  thumbnails: JSON.parse(document.getElementById("thumbnails").textContent),
  arrays: {},
  $: (id) => document.getElementById(id),
  number: (value) => value.toLocaleString("en-US"),
  counted: (count, noun, plural) => `${report.number(count)} ${count === 1 ? noun : plural || noun + "s"}`,
};

report.element = (tag, text, properties = {}) => {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
};

report.color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

report.showThumbnail = (image, photo) => {
  const picture = report.thumbnails[photo];
  image.classList.toggle("gone", !picture);
  if (picture) image.src = `data:image/webp;base64,${picture}`;
  else image.removeAttribute("src");
};

report.loadThumbnail = (photo) => new Promise((resolve) => {
  const image = new Image();
  image.onload = () => resolve(image);
  image.onerror = () => resolve(null);
  if (report.thumbnails[photo]) image.src = `data:image/webp;base64,${report.thumbnails[photo]}`;
  else resolve(null);
});

// Width over height of the upright photo.
report.aspect = (photo) => {
  const { width, height, orientation } = report.data.photos[photo];
  if (!width || !height) return 4 / 3;
  return orientation > 4 ? height / width : width / height;
};

report.state = (photo) => {
  const { model, keypoints, cause } = report.data.photos[photo];
  if (model === 0) return { key: "registered", sign: "●", name: "model0", text: report.data.models.length > 1 ? "model 0" : "registered" };
  if (model !== null) return { key: "other", sign: "◆", name: "other", text: `model ${model}` };
  if (cause === "failed") return { key: "missing", sign: "✕", name: "none", text: "failed" };
  if (report.data.state === "unfinished") return { key: "missing", sign: "○", name: "none", text: keypoints === null ? "not extracted" : "not mapped yet" };
  if (report.data.state === "unread") return { key: "missing", sign: "○", name: "none", text: "unknown" };
  return { key: "missing", sign: "✕", name: "none", text: "not registered" };
};

report.unpack = async () => {
  const text = atob(document.getElementById("arrays").textContent);
  const packed = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const buffer = await new Response(stream).arrayBuffer();
  const types = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array };
  for (const [name, { type, offset, length }] of Object.entries(report.data.arrays)) {
    report.arrays[name] = new types[type](buffer, offset, length);
  }
  const { pair_a: a, pair_b: b } = report.arrays; // differences, modulo 2^32
  for (let i = 1; i < a.length; i += 1) {
    a[i] += a[i - 1];
    b[i] += b[i - 1];
  }
};

// Row of the value in an ascending array, or -1. `at` reads the value of a row.
report.find = (length, at, value) => {
  let low = 0;
  let high = length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (at(middle) === value) return middle;
    if (at(middle) < value) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
};

report.pairOf = (first, second) => {
  const [a, b] = first < second ? [first, second] : [second, first];
  const count = report.data.photos.length;
  const { pair_a: as, pair_b: bs } = report.arrays;
  return report.find(as.length, (row) => as[row] * count + bs[row], a * count + b);
};

report.describePair = (pair) => {
  const { matches, inliers } = report.arrays;
  if (inliers[pair]) return `${report.counted(matches[pair], "match", "matches")}, ${report.number(inliers[pair])} verified`;
  if (matches[pair]) return `${report.counted(matches[pair], "match", "matches")}, not verified`;
  return "tried, no matches";
};

// Size a canvas for sharp drawing in CSS pixels; returns its context.
report.prepare = (canvas, width, height) => {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
};

report.onRedraw = (draw) => {
  let pending = 0;
  const later = () => {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(draw);
  };
  window.addEventListener("resize", later);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
  draw();
};
