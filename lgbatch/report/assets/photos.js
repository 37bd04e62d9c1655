"use strict";
// The table of photos: rows are made once, then sorted and filtered. Pictures load when their rows are seen.
(() => {
  const { $ } = report;
  const columns = ["keypoints", "pairs", "matched", "verified", "observations"];
  let rows = [];
  let order = { key: "name", down: false };

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter(({ isIntersecting }) => isIntersecting)) {
      seen.unobserve(entry.target);
      report.showThumbnail(entry.target, Number(entry.target.dataset.thumb));
    }
  }, { rootMargin: "300px" });

  report.observeThumbnails = () => document.querySelectorAll("img[data-thumb]").forEach((image) => seen.observe(image));

  const makeRow = (values, photo) => {
    const row = report.element("tr");
    const image = report.element("img", null, { alt: "", loading: "lazy" });
    image.dataset.thumb = photo;
    const picture = report.element("td");
    picture.append(image);
    const name = report.element("button", values.name, { type: "button", className: "link" });
    name.dataset.photo = photo;
    const named = report.element("th", null, { scope: "row" });
    named.append(name);
    const { sign, text, name: kind } = report.state(photo);
    const state = report.element("td");
    state.append(report.element("span", sign, { className: `sign ${kind}`, ariaHidden: "true" }), ` ${text}`);
    if (values.reason) state.append(report.element("span", values.reason, { className: "why" }));
    row.append(picture, named, state);
    for (const column of columns) {
      row.append(report.element("td", values[column] === null ? "–" : report.number(values[column]), { className: "n" }));
    }
    for (const column of report.data.gps ? ["error", "gps_residual"] : ["error"]) {
      row.append(report.element("td", values[column] === null ? "–" : values[column].toFixed(2), { className: "n" }));
    }
    return row;
  };

  const keyOf = (photo) => {
    const values = report.data.photos[photo];
    if (order.key === "name") return photo;
    if (order.key === "state") return (values.model === null ? 1e6 : values.model) + (values.cause === "failed");
    return values[order.key] === null ? -1 : values[order.key];
  };

  const update = () => {
    const text = $("photo-filter").value.trim().toLowerCase();
    const state = $("photo-state").value;
    const shown = rows.map((_, photo) => photo).filter((photo) => {
      const { name, reason } = report.data.photos[photo];
      return (!state || report.state(photo).key === state) && `${name}\n${reason || ""}`.toLowerCase().includes(text);
    });
    shown.sort((p, q) => (keyOf(p) - keyOf(q)) * (order.down ? -1 : 1) || p - q);
    $("photo-table").tBodies[0].replaceChildren(...shown.map((photo) => rows[photo]));
    $("photo-count").textContent = `${report.number(shown.length)} of ${report.counted(rows.length, "photo")}`;
    for (const button of document.querySelectorAll("[data-sort]")) {
      const chosen = button.dataset.sort === order.key;
      button.closest("th").setAttribute("aria-sort", chosen ? (order.down ? "descending" : "ascending") : "none");
      button.textContent = button.textContent.replace(/ [▲▼]$/, "") + (chosen ? (order.down ? " ▼" : " ▲") : "");
    }
  };

  report.setUpPhotos = () => {
    rows = report.data.photos.map(makeRow);
    update();
    $("photo-filter").addEventListener("input", update);
    $("photo-state").addEventListener("change", update);
    for (const button of document.querySelectorAll("[data-sort]")) {
      button.onclick = () => {
        const key = button.dataset.sort;
        order = { key, down: key === order.key ? !order.down : !["name", "state"].includes(key) };
        update();
      };
    }
  };
})();
