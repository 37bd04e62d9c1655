"use strict";
// The model in 3D, by three.js: points, and a pyramid for each camera. It is drawn only when something changes.
(() => {
  const { $ } = report;
  const colors = { camera: [0.36, 0.68, 1], chosen: [1, 0.72, 0.2] };
  let number = 0;
  let chosen = -1; // camera of the model
  let scene, camera, renderer, controls, points, frusta, radius;
  let pending = 0;

  const view = () => report.data.views[number];
  const vector = (values) => new THREE.Vector3(...values);
  const worldAxis = ({ rotation }, axis) => vector(rotation[axis]); // a row of camera_from_world

  const render = () => {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(() => renderer.render(scene, camera));
  };

  const resize = () => {
    const [width, height] = [$("viewer").clientWidth, $("viewer").clientHeight];
    renderer.setPixelRatio(Math.min(window.devicePixelRatio || 1, 2));
    renderer.setSize(width, height);
    camera.aspect = width / height;
    camera.updateProjectionMatrix();
    render();
  };

  const makePoints = () => {
    const { low, step } = view();
    const quantised = report.arrays[`xyz${number}`];
    const positions = new Float32Array(quantised.length);
    for (let i = 0; i < positions.length; i += 1) positions[i] = low[i % 3] + quantised[i] * step;
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(positions, 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(linear(report.arrays[`colors${number}`]), 3));
    const material = new THREE.PointsMaterial({ size: Number($("point-size").value), sizeAttenuation: false, vertexColors: true });
    return new THREE.Points(geometry, material);
  };

  // three.js expects linear colours, the photos have sRGB.
  const linear = (bytes) => {
    const table = Float32Array.from({ length: 256 }, (_, i) => (i / 255 <= 0.04045 ? i / 255 / 12.92 : ((i / 255 + 0.055) / 1.055) ** 2.4));
    return Float32Array.from(bytes, (value) => table[value]);
  };

  const corners = (values, depth) => {
    const [x, y, z] = [0, 1, 2].map((axis) => worldAxis(values, axis));
    const [right, down] = [values.view * depth, (values.view / values.aspect) * depth];
    const corner = (sx, sy) => vector(values.centre).addScaledVector(z, depth).addScaledVector(x, sx * right).addScaledVector(y, sy * down);
    return [corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1)];
  };

  const makeFrusta = () => {
    const depth = radius * 0.06 * Number($("camera-size").value);
    const [positions, tints] = [[], []];
    view().cameras.forEach((values, i) => {
      const four = corners(values, depth * (i === chosen ? 1.6 : 1));
      const tip = vector(values.centre);
      for (let k = 0; k < 4; k += 1) {
        for (const end of [tip, four[k], four[k], four[(k + 1) % 4]]) {
          positions.push(end.x, end.y, end.z);
          tints.push(...(i === chosen ? colors.chosen : colors.camera));
        }
      }
    });
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.Float32BufferAttribute(positions, 3));
    geometry.setAttribute("color", new THREE.Float32BufferAttribute(tints, 3));
    return new THREE.LineSegments(geometry, new THREE.LineBasicMaterial({ vertexColors: true }));
  };

  const replaceFrusta = () => {
    if (frusta) {
      scene.remove(frusta);
      frusta.geometry.dispose();
    }
    frusta = makeFrusta();
    scene.add(frusta);
    render();
  };

  // Up is against the mean y axis of the cameras; of cameras that look down, against their mean view.
  const upward = () => {
    const mean = (axis) => view().cameras.reduce((sum, values) => sum.add(worldAxis(values, axis)), new THREE.Vector3()).divideScalar(Math.max(view().cameras.length, 1));
    const [down, ahead] = [mean(1), mean(2)];
    if (down.length() < 0.3 && ahead.length() > 0.3) return ahead.negate().normalize();
    return down.length() > 1e-6 ? down.negate().normalize() : new THREE.Vector3(0, 1, 0);
  };

  const median = (values) => values.sort((p, q) => p - q)[values.length >> 1] || 0;

  const reset = () => {
    const { cameras, low, step } = view();
    const quantised = report.arrays[`xyz${number}`];
    const target = vector([0, 1, 2].map((axis) => low[axis] + step * median(Array.from({ length: quantised.length / 3 }, (_, i) => quantised[3 * i + axis]))));
    const distances = cameras.map(({ centre }) => vector(centre).distanceTo(target));
    const spread = median(Array.from({ length: Math.floor(quantised.length / 30) }, (_, i) => vector([0, 1, 2].map((axis) => low[axis] + step * quantised[30 * i + axis])).distanceTo(target)));
    radius = Math.max(...distances, spread * 1.5, 1e-6);
    const up = upward();
    const back = cameras.reduce((sum, { centre }) => sum.add(vector(centre)), new THREE.Vector3()).divideScalar(Math.max(cameras.length, 1)).sub(target);
    if (back.length() < 0.05 * radius) back.copy(vector(cameras.length ? cameras[0].centre : [0, 0, 1])).sub(target);
    const along = Math.abs(back.clone().normalize().dot(up));
    const side = cameras.length ? worldAxis(cameras[0], 1) : new THREE.Vector3(1, 0, 0);
    back.normalize().addScaledVector(along > 0.8 ? side : up, 0.45).normalize();
    if (controls) controls.dispose();
    camera.up.copy(up);
    camera.position.copy(target).addScaledVector(back, (radius * 1.5) / Math.min(1, $("viewer").clientWidth / $("viewer").clientHeight));
    camera.near = radius / 500;
    camera.far = radius * 100;
    controls = new THREE.OrbitControls(camera, renderer.domElement);
    controls.target.copy(target);
    controls.addEventListener("change", render);
    controls.update();
    resize();
  };

  const load = (which) => {
    number = which;
    chosen = -1;
    if (points) {
      scene.remove(points);
      points.geometry.dispose();
    }
    points = makePoints();
    scene.add(points);
    reset();
    replaceFrusta();
    const { shown } = view();
    const all = report.data.models[number].points3D;
    const part = shown < all ? `${report.number(shown)} of ${report.counted(all, "point")} are shown` : report.counted(all, "point");
    $("model-readout").textContent = `${report.counted(view().cameras.length, "camera")}, ${part}. Click a camera to see its photo.`;
  };

  const select = (index) => {
    chosen = index;
    replaceFrusta();
    const { photo } = view().cameras[index];
    const values = report.data.photos[photo];
    const error = values.error === null ? "" : `, error ${values.error.toFixed(2)} px`;
    $("model-readout").textContent = `${values.name}: ${report.counted(values.observations, "3D point")}${error}`;
  };

  const pick = (event) => {
    const box = renderer.domElement.getBoundingClientRect();
    let [best, distance] = [-1, 18];
    view().cameras.forEach((values, i) => {
      const ends = [vector(values.centre), ...corners(values, radius * 0.06 * Number($("camera-size").value))];
      const middle = ends.reduce((sum, end) => sum.add(end), new THREE.Vector3()).divideScalar(5 + 1).sub(vector([0, 0, 0]));
      for (const place of [vector(values.centre), middle]) {
        const screen = place.project(camera);
        if (screen.z > 1) continue;
        const [x, y] = [((screen.x + 1) / 2) * box.width, ((1 - screen.y) / 2) * box.height];
        const length = Math.hypot(x - (event.clientX - box.left), y - (event.clientY - box.top));
        if (length < distance) [best, distance] = [i, length];
      }
    });
    return best;
  };

  const turn = (sideways, upwards) => {
    const offset = camera.position.clone().sub(controls.target);
    const axis = offset.clone().cross(camera.up).normalize();
    offset.applyAxisAngle(camera.up, sideways);
    if (Math.abs(offset.clone().normalize().dot(camera.up)) < 0.97 || Math.sign(offset.dot(camera.up)) !== Math.sign(upwards)) offset.applyAxisAngle(axis, upwards);
    camera.position.copy(controls.target).add(offset);
    controls.update();
    render();
  };

  const zoom = (factor) => {
    camera.position.sub(controls.target).multiplyScalar(factor).add(controls.target);
    controls.update();
    render();
  };

  const onKey = (event) => {
    const count = view().cameras.length;
    const actions = {
      ArrowLeft: () => turn(-0.12, 0), ArrowRight: () => turn(0.12, 0), ArrowUp: () => turn(0, 0.12), ArrowDown: () => turn(0, -0.12),
      "+": () => zoom(0.85), "=": () => zoom(0.85), "-": () => zoom(1 / 0.85),
      n: () => count && select((chosen + 1) % count), p: () => count && select((chosen + count - (chosen < 0 ? 0 : 1)) % count),
      Enter: () => chosen >= 0 && report.openPhoto(view().cameras[chosen].photo),
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  };

  const listen = () => {
    let down = null;
    $("viewer").addEventListener("pointerdown", (event) => { down = [event.clientX, event.clientY]; });
    $("viewer").addEventListener("click", (event) => {
      if (!down || Math.hypot(event.clientX - down[0], event.clientY - down[1]) > 5) return;
      const index = pick(event);
      if (index < 0) return;
      if (index === chosen) report.openPhoto(view().cameras[index].photo);
      else select(index);
    });
    $("viewer").addEventListener("dblclick", () => chosen >= 0 && report.openPhoto(view().cameras[chosen].photo));
    $("viewer").addEventListener("keydown", onKey);
    $("point-size").oninput = () => { points.material.size = Number($("point-size").value); render(); };
    $("camera-size").oninput = replaceFrusta;
    $("model-reset").onclick = reset;
    $("model-number").onchange = () => load(Number($("model-number").value));
    window.addEventListener("resize", resize);
  };

  const start = () => {
    try {
      renderer = new THREE.WebGLRenderer({ antialias: true });
    } catch {
      report.showCamera = null;
      $("viewer").replaceChildren(report.element("p", "This browser shows no 3D graphics (WebGL): open sparse/ in COLMAP's viewer instead."));
      return;
    }
    renderer.setClearColor(0x14171b);
    scene = new THREE.Scene();
    camera = new THREE.PerspectiveCamera(50, 1, 0.1, 1000);
    $("viewer").replaceChildren(renderer.domElement);
    listen();
    load(0);
    report.showCamera = (photo) => {
      const model = report.data.photos[photo].model;
      if (model !== number) {
        $("model-number").value = String(model);
        load(model);
      }
      $("model").scrollIntoView();
      select(view().cameras.findIndex((values) => values.photo === photo));
      $("viewer").focus({ preventScroll: true });
    };
  };

  // The graphics start when the part comes near the screen.
  report.setUpModel = () => {
    if (!$("viewer")) return;
    const near = new IntersectionObserver((entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      near.disconnect();
      start();
    }, { rootMargin: "600px" });
    near.observe($("viewer"));
    report.showCamera = (photo) => {
      near.disconnect();
      start();
      if (report.showCamera) report.showCamera(photo);
    };
  };
})();
