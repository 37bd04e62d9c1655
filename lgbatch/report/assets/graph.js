"use strict";
// The graph of photos: nodes where the layout puts them, lines for verified pairs, dashes for weak bridges.
(() => {
  const { $ } = report;
  const canvas = $("graph");
  const strongest = 6; // lines of a photo that are drawn
  let edges = [];
  let nodes = [];
  let scale = 1;
  let chosen = -1;

  const choose = () => {
    const { pair_a: a, pair_b: b, inliers } = report.arrays;
    const rows = [];
    for (let i = 0; i < a.length; i += 1) if (inliers[i]) rows.push(i);
    rows.sort((p, q) => inliers[q] - inliers[p]);
    const drawn = new Map();
    const take = (photo) => drawn.set(photo, (drawn.get(photo) || 0) + 1);
    edges = rows.filter((row) => {
      if ((drawn.get(a[row]) || 0) >= strongest && (drawn.get(b[row]) || 0) >= strongest) return false;
      take(a[row]);
      take(b[row]);
      return true;
    }).reverse();
  };

  const point = (photo) => [report.arrays.layout[2 * photo] * scale, report.arrays.layout[2 * photo + 1] * scale];

  const drawNode = (context, photo, radius) => {
    const [x, y] = point(photo);
    const { key } = report.state(photo);
    context.fillStyle = report.color({ registered: "--blue", other: "--green", missing: "--weak" }[key]);
    context.strokeStyle = report.color("--panel");
    context.lineWidth = 1.5;
    context.beginPath();
    if (key === "registered") context.arc(x, y, radius, 0, 7);
    else if (key === "other") {
      context.moveTo(x, y - radius * 1.3);
      for (const [dx, dy] of [[1.3, 0], [0, 1.3], [-1.3, 0]]) context.lineTo(x + dx * radius, y + dy * radius);
      context.closePath();
    } else {
      context.strokeStyle = report.color("--weak");
      context.lineWidth = 2;
      for (const way of [1, -1]) {
        context.moveTo(x - radius, y - radius * way);
        context.lineTo(x + radius, y + radius * way);
      }
      context.stroke();
      return;
    }
    context.fill();
    context.stroke();
  };

  const draw = () => {
    scale = Math.min(canvas.parentElement.clientWidth, 640 / report.data.graph.height);
    const context = report.prepare(canvas, scale, scale * report.data.graph.height);
    const { pair_a: a, pair_b: b, inliers } = report.arrays;
    const most = Math.log1p(Math.max(report.data.pairs.most_inliers, 1));
    const line = (first, second) => {
      context.beginPath();
      context.moveTo(...point(first));
      context.lineTo(...point(second));
      context.stroke();
    };
    context.strokeStyle = report.color("--muted");
    for (const row of edges) {
      const share = Math.log1p(inliers[row]) / most;
      context.globalAlpha = 0.12 + 0.4 * share * share;
      context.lineWidth = 0.5 + 2.5 * share * share;
      line(a[row], b[row]);
    }
    context.globalAlpha = 1;
    context.setLineDash([6, 4]);
    context.strokeStyle = report.color("--weak");
    context.lineWidth = 2;
    for (const { best } of report.data.graph.bridges) line(...best);
    context.setLineDash([]);
    const radius = Math.max(2.5, Math.min(7, (scale / Math.sqrt(Math.max(nodes.length, 1))) * 0.12));
    nodes.forEach((photo) => drawNode(context, photo, radius));
    if (chosen >= 0) {
      const [x, y] = point(chosen);
      context.strokeStyle = report.color("--ink");
      context.lineWidth = 2;
      context.beginPath();
      context.arc(x, y, radius + 4, 0, 7);
      context.stroke();
    }
  };

  const select = (photo) => {
    chosen = photo;
    const values = report.data.photos[photo];
    const text = values ? `${values.name}: ${report.state(photo).text}, ${report.counted(values.verified, "verified pair")}` : "";
    $("graph-readout").textContent = text;
    draw();
  };

  const nearest = (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, distance] = [-1, 16];
    for (const photo of nodes) {
      const [u, v] = point(photo);
      const length = Math.hypot(u - x, v - y);
      if (length < distance) [best, distance] = [photo, length];
    }
    return best;
  };

  const listBridges = () => {
    const items = report.data.graph.bridges.map(({ groups, pairs, best, inliers }) => {
      const names = best.map((photo) => report.data.photos[photo].name).join(" — ");
      const button = report.element("button", names, { type: "button", className: "link" });
      button.onclick = () => report.openPair(report.pairOf(...best));
      const item = report.element("li");
      item.append(button, `: ${report.counted(inliers, "verified match", "verified matches")}; ${report.counted(pairs, "pair")} between groups ${groups[0] + 1} and ${groups[1] + 1}`);
      return item;
    });
    $("bridges").replaceChildren(...(items.length ? items : [report.element("li", "none: strong pairs join all that is joined")]));
  };

  report.setUpGraph = () => {
    nodes = report.data.photos.map((_, photo) => photo).filter((photo) => report.arrays.layout[2 * photo] >= 0);
    choose();
    listBridges();
    canvas.addEventListener("mousemove", (event) => {
      const photo = nearest(event);
      canvas.style.cursor = photo < 0 ? "default" : "pointer";
      if (photo >= 0 && photo !== chosen) select(photo);
    });
    canvas.addEventListener("click", (event) => {
      const photo = nearest(event);
      if (photo >= 0) report.openPhoto(photo);
    });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (step && nodes.length) {
        event.preventDefault();
        select(nodes[(nodes.indexOf(chosen) + step + nodes.length) % nodes.length]);
      } else if (event.key === "Enter" && chosen >= 0) {
        event.preventDefault();
        report.openPhoto(chosen);
      }
    });
    report.onRedraw(draw);
  };
})();
