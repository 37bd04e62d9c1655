"use strict";
// The matrix of pairs on a canvas. The state of a cell shows by size and by lightness, not by hue alone.
(() => {
  const { $ } = report;
  const canvas = $("matrix");
  const cursor = { row: 0, column: 1 };
  let cell = 1;

  let ends = [];

  const verifiedColor = (count) => {
    const [low, high] = ends;
    const share = Math.min(Math.log1p(count) / Math.log1p(Math.max(report.data.pairs.most_inliers, 2)), 1) ** 1.5;
    return low.map((value, i) => Math.round(value + share * (high[i] - value)));
  };

  // A square in the middle of the cell: a tenth of it if tried, a third if matched, all of it if verified.
  const paint = (context, x, y, size, state, color) => {
    const part = { tried: 0.3, matched: 0.6, verified: 1 }[state];
    const side = Math.max(size * part - (size > 8 ? 1 : 0), 1);
    context.fillStyle = color;
    context.fillRect(x + (size - side) / 2, y + (size - side) / 2, side, side);
  };

  const rgb = (name) => [1, 3, 5].map((start) => parseInt(report.color(name).slice(start, start + 2), 16));

  // Cells of few pixels: one pixel each, then the whole picture is scaled.
  const drawPixels = (context, count) => {
    const picture = new ImageData(count, count);
    const words = new Uint32Array(picture.data.buffer);
    const word = ([red, green, blue]) => new Uint32Array(Uint8Array.of(red, green, blue, 255).buffer)[0];
    const { pair_a: a, pair_b: b, matches, inliers } = report.arrays;
    const [tried, matched] = [word(rgb("--tried")), word(rgb("--matched"))];
    const verified = new Map();
    for (const value of new Set(inliers)) verified.set(value, word(verifiedColor(value)));
    words.fill(word(rgb("--soft")));
    for (let i = 0; i < a.length; i += 1) {
      const color = inliers[i] ? verified.get(inliers[i]) : matches[i] ? matched : tried;
      words[a[i] * count + b[i]] = color;
      words[b[i] * count + a[i]] = color;
    }
    const small = report.element("canvas", null, { width: count, height: count });
    small.getContext("2d").putImageData(picture, 0, 0);
    context.imageSmoothingEnabled = cell < 1;
    context.drawImage(small, 0, 0, cell * count, cell * count);
  };

  const drawCells = (context) => {
    const { pair_a: a, pair_b: b, matches, inliers } = report.arrays;
    const [tried, matched] = [report.color("--tried"), report.color("--matched")];
    const shades = new Map();
    for (const value of new Set(inliers)) shades.set(value, `rgb(${verifiedColor(value).join(" ")})`);
    for (let i = 0; i < a.length; i += 1) {
      const state = inliers[i] ? "verified" : matches[i] ? "matched" : "tried";
      const color = state === "verified" ? shades.get(inliers[i]) : state === "matched" ? matched : tried;
      paint(context, b[i] * cell, a[i] * cell, cell, state, color);
      paint(context, a[i] * cell, b[i] * cell, cell, state, color);
    }
  };

  const draw = () => {
    ends = ["--verified-low", "--verified-high"].map((name) => report.color(name).split(" ").map(Number));
    const count = report.data.photos.length;
    const room = Math.min(canvas.parentElement.clientWidth, 720);
    const zoom = Number($("matrix-zoom").value);
    const side = Math.min(room * zoom, 4096);
    cell = Math.min(side / Math.max(count, 1), 48 * zoom);
    const context = report.prepare(canvas, cell * count, cell * count);
    context.fillStyle = report.color("--soft");
    context.fillRect(0, 0, cell * count, cell * count);
    if (cell < 5) drawPixels(context, count);
    else drawCells(context);
    context.fillStyle = report.color("--line");
    for (let i = 0; i < count; i += 1) context.fillRect(i * cell, i * cell, cell, cell);
    if (document.activeElement === canvas) {
      const edge = Math.max(cell, 6);
      context.strokeStyle = report.color("--ink");
      context.lineWidth = 2;
      context.strokeRect(cursor.column * cell + (cell - edge) / 2, cursor.row * cell + (cell - edge) / 2, edge, edge);
    }
  };

  const tell = () => {
    const { row, column } = cursor;
    const photos = report.data.photos;
    if (!photos[row] || !photos[column]) return -1;
    const pair = row === column ? -1 : report.pairOf(row, column);
    const names = `${photos[row].name} — ${photos[column].name}`;
    const state = row === column ? "the same photo" : pair < 0 ? "not tried" : report.describePair(pair);
    $("matrix-readout").textContent = `${names}: ${state}`;
    return pair;
  };

  const aim = (event) => {
    const box = canvas.getBoundingClientRect();
    const last = report.data.photos.length - 1;
    const at = (position) => Math.max(0, Math.min(last, Math.floor(position / cell)));
    cursor.column = at(event.clientX - box.left);
    cursor.row = at(event.clientY - box.top);
    return tell();
  };

  const onKey = (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Enter") {
      event.preventDefault(); // else the key would press the dialog's first button
      const pair = tell();
      if (pair >= 0) report.openPair(pair);
    }
    if (!move) return;
    event.preventDefault();
    const last = report.data.photos.length - 1;
    cursor.row = Math.max(0, Math.min(last, cursor.row + move[0]));
    cursor.column = Math.max(0, Math.min(last, cursor.column + move[1]));
    tell();
    draw();
  };

  report.setUpMatrix = () => {
    canvas.addEventListener("mousemove", aim);
    canvas.addEventListener("click", (event) => {
      const pair = aim(event);
      draw();
      if (pair >= 0) report.openPair(pair);
    });
    canvas.addEventListener("keydown", onKey);
    canvas.addEventListener("focus", draw);
    canvas.addEventListener("blur", draw);
    $("matrix-zoom").addEventListener("change", draw);
    const swatches = () => {
      for (const swatch of document.querySelectorAll("[data-swatch]")) {
        const state = swatch.dataset.swatch;
        const context = report.prepare(swatch, 16, 16);
        context.fillStyle = report.color("--soft");
        context.fillRect(0, 0, 16, 16);
        const deep = `rgb(${verifiedColor(report.data.pairs.most_inliers / 2).join(" ")})`;
        paint(context, 0, 0, 16, state, state === "verified" ? deep : report.color(`--${state}`));
      }
    };
    report.onRedraw(() => {
      draw();
      swatches();
    });
    const { drawn } = report.arrays;
    if (drawn.length < report.data.pairs.matched) {
      $("drawn-note").textContent = `To keep the page small it holds the matches of ${report.number(drawn.length)} of the ${report.number(report.data.pairs.matched)} pairs with matches: the best ones of each photo, first of those that are not registered.`;
    }
  };
})();
