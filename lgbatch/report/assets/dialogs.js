"use strict";
// The pair dialog draws two photos with their matches; the photo dialog has the facts of one photo.
(() => {
  const { $ } = report;
  let shown = -1;
  let drawing = 0;

  const drawnMatches = (pair) => {
    const { drawn, drawn_counts: counts, positions } = report.arrays;
    const row = report.find(drawn.length, (i) => drawn[i], pair);
    if (row < 0) return null;
    let start = 0;
    for (let i = 0; i < row; i += 1) start += counts[2 * i] + counts[2 * i + 1];
    const total = positions.length / 4;
    const at = (axis, match) => positions[axis * total + start + match] / report.data.steps;
    return { verified: counts[2 * row], others: counts[2 * row + 1], at };
  };

  // Side by side, or one above the other on a narrow page.
  const places = (a, b, width) => {
    const gap = 8;
    const [first, second] = [report.aspect(a), report.aspect(b)];
    if (width < 560) {
      const top = width / first;
      return [[0, 0, width, top], [0, top + gap, width, width / second]];
    }
    const height = Math.min((width - gap) / (first + second), window.innerHeight * 0.6);
    const left = (width - gap - height * (first + second)) / 2;
    return [[left, 0, height * first, height], [left + height * first + gap, 0, height * second, height]];
  };

  const drawLines = (context, matches, boxes, from, to, verified) => {
    context.setLineDash(verified ? [] : [5, 4]);
    context.lineWidth = verified ? 1.2 : 1;
    for (let i = from; i < to; i += 1) {
      const [x, y, u, v] = [0, 1, 2, 3].map((axis) => matches.at(axis, i));
      const [p, q] = [boxes[0][0] + x * boxes[0][2], boxes[0][1] + y * boxes[0][3]];
      const [r, s] = [boxes[1][0] + u * boxes[1][2], boxes[1][1] + v * boxes[1][3]];
      const hue = verified ? `hsl(${170 + 90 * y} 85% 62% / .75)` : "hsl(30 100% 58% / .8)";
      context.strokeStyle = hue;
      context.fillStyle = hue;
      context.beginPath();
      context.moveTo(p, q);
      context.lineTo(r, s);
      context.stroke();
      for (const [cx, cy] of [[p, q], [r, s]]) {
        context.beginPath();
        context.arc(cx, cy, 2, 0, 7);
        context.fill();
      }
    }
    context.setLineDash([]);
  };

  const drawPair = async () => {
    const [a, b] = [report.arrays.pair_a[shown], report.arrays.pair_b[shown]];
    drawing += 1;
    const turn = drawing;
    const images = await Promise.all([report.loadThumbnail(a), report.loadThumbnail(b)]);
    if (turn !== drawing) return;
    const width = $("pair-canvas").parentElement.clientWidth - 40;
    const boxes = places(a, b, width);
    const height = Math.max(...boxes.map(([, y, , h]) => y + h));
    const context = report.prepare($("pair-canvas"), width, height);
    boxes.forEach((box, i) => {
      context.fillStyle = report.color("--soft");
      context.fillRect(...box);
      if (images[i]) context.drawImage(images[i], ...box);
    });
    const matches = drawnMatches(shown);
    if (!matches) return;
    if ($("pair-others").checked) drawLines(context, matches, boxes, matches.verified, matches.verified + matches.others, false);
    drawLines(context, matches, boxes, 0, matches.verified, true);
  };

  report.openPair = (pair) => {
    shown = pair;
    const { pair_a: a, pair_b: b, matches, inliers } = report.arrays;
    const names = [a[pair], b[pair]].map((photo) => report.data.photos[photo].name);
    const drawn = drawnMatches(pair);
    let text = `${report.describePair(pair)}.`;
    if (drawn && drawn.verified + drawn.others < matches[pair]) text += ` ${drawn.verified + drawn.others} of them are drawn.`;
    if (!drawn && matches[pair]) text += " The page does not hold the matches of this pair: it holds those of the best pairs of each photo.";
    if (inliers[pair] && inliers[pair] < report.data.graph.strong) text += ` Weak: fewer than ${report.data.graph.strong} verified matches.`;
    $("pair-title").textContent = names.join(" — ");
    $("pair-facts").textContent = text;
    $("pair-previous").disabled = pair === 0;
    $("pair-next").disabled = pair === a.length - 1;
    if (!$("pair-dialog").open) $("pair-dialog").showModal();
    drawPair();
  };

  const fact = (name, value) => [report.element("dt", name), report.element("dd", value)];

  // Commands stand between backticks.
  const advice = (text) => {
    const parts = text.split("`").map((part, i) => report.element(i % 2 ? "code" : "span", part));
    const [term, description] = fact("What to do", null);
    description.append(...parts);
    return [term, description];
  };

  report.openPhoto = (photo) => {
    const values = report.data.photos[photo];
    const state = report.state(photo);
    const facts = [fact("State", `${state.sign} ${state.text}`)];
    if (values.reason) facts.push(fact("Reason", values.reason));
    if (values.width) facts.push(fact("Size", `${values.width} × ${values.height} px`));
    if (values.keypoints !== null) facts.push(fact("Keypoints", report.number(values.keypoints)));
    facts.push(fact("Pairs", `${values.pairs} tried, ${values.matched} matched, ${values.verified} verified`));
    if (values.model !== null) facts.push(fact("3D points", report.number(values.observations)));
    if (values.error !== null) facts.push(fact("Reprojection error", `${values.error.toFixed(2)} px`));
    if (values.gps_residual !== null) facts.push(fact("GPS residual", `${values.gps_residual.toFixed(2)} m`));
    if (values.advice) facts.push(advice(values.advice));
    $("photo-title").textContent = values.name;
    report.showThumbnail($("photo-picture"), photo);
    $("photo-picture").alt = report.thumbnails[photo] ? values.name : "";
    $("photo-facts").replaceChildren(...facts.flat());
    $("photo-pairs").replaceChildren(...bestPairs(photo).map((pair) => pairItem(pair, photo)));
    $("photo-show").hidden = values.model === null || !report.showCamera;
    $("photo-show").onclick = () => {
      $("photo-dialog").close();
      report.showCamera(photo);
    };
    if (!$("photo-dialog").open) $("photo-dialog").showModal();
  };

  const bestPairs = (photo) => {
    const { pair_a: a, pair_b: b, matches, inliers } = report.arrays;
    const found = [];
    for (let i = 0; i < a.length; i += 1) if ((a[i] === photo || b[i] === photo) && matches[i]) found.push(i);
    return found.sort((p, q) => inliers[q] - inliers[p] || matches[q] - matches[p]).slice(0, 20);
  };

  const pairItem = (pair, photo) => {
    const { pair_a: a, pair_b: b } = report.arrays;
    const other = report.data.photos[a[pair] === photo ? b[pair] : a[pair]];
    const button = report.element("button", other.name, { type: "button", className: "link" });
    button.onclick = () => {
      $("photo-dialog").close();
      report.openPair(pair);
    };
    const item = report.element("li");
    item.append(button, ` ${report.describePair(pair)}`);
    return item;
  };

  report.setUpDialogs = () => {
    const step = (by) => {
      const next = shown + by;
      if (next >= 0 && next < report.arrays.pair_a.length) report.openPair(next);
    };
    $("pair-previous").onclick = () => step(-1);
    $("pair-next").onclick = () => step(1);
    $("pair-others").onchange = drawPair;
    $("pair-dialog").addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") step(event.key === "ArrowLeft" ? -1 : 1);
    });
    window.addEventListener("resize", () => $("pair-dialog").open && drawPair());
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    }
  };
})();
