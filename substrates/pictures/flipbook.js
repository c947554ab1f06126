// One picture for every place of a few sliders. `model.get` gives `names`, `values` and `frames`, in the order in which
// the last slider runs fastest; `model.set`, where there is one, is told where the sliders are.
function render({ model, el }) {
  const names = model.get("names"), values = model.get("values"), frames = model.get("frames");
  const place = [...model.get("place")];
  const picture = document.createElement("img");
  picture.alt = names.join(", ");
  const controls = document.createElement("div");
  const rows = names.map((name, axis) => {
    const row = document.createElement("label"), slider = document.createElement("input");
    const shown = document.createElement("output");
    row.style.cssText = "display:flex;gap:0.7em;align-items:center;font-family:sans-serif;font-size:0.9em";
    Object.assign(slider, { type: "range", min: 0, max: values[axis].length - 1, step: 1 });
    slider.style.width = "16em";
    slider.addEventListener("input", () => { place[axis] = Number(slider.value); told(); });
    row.append(slider, name, " = ", shown);
    controls.append(row);
    return { slider, shown };
  });
  function show() {
    let frame = 0;
    place.forEach((at, axis) => {
      frame = frame * values[axis].length + at;
      rows[axis].slider.value = at;
      rows[axis].shown.value = values[axis][at];
    });
    picture.src = "data:image/png;base64," + frames[frame];
  }
  function told() {
    show();
    if (model.set) { model.set("place", [...place]); model.save_changes(); }
  }
  let playing = null;
  function stop() { clearInterval(playing); playing = null; button.textContent = "play"; }
  const button = document.createElement("button");
  button.textContent = "play";
  button.addEventListener("click", () => {
    if (playing !== null) { stop(); return; }
    button.textContent = "pause";
    playing = setInterval(() => { place[0] = (place[0] + 1) % values[0].length; told(); }, model.get("milliseconds"));
  });
  if (names.length === 1) controls.append(button);
  if (model.on) model.on("change:place", () => { place.splice(0, place.length, ...model.get("place")); show(); });
  el.replaceChildren(controls, picture);
  show();
  return stop;
}
export default { render };
