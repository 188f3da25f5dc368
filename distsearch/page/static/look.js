// Figures of Bokeh take the colours of the page around them, light or dark, and obey the keyboard.
"use strict";
const BLUES = [["#0072B2", "#3d9ad9"], ["#56B4E9", "#a9dcf6"]]; // those of plots/colours.py, and theirs on dark
const FAINT = {dark: 2, light: 1.3}; // a colour of less contrast to what is behind it is hardly seen
const BOLDER = 1.5; // so many times more opaque are thin lines on dark
const Look = {
  isDark() {
    return document.documentElement.classList.contains("dark");
  },
  set(dark) {
    document.documentElement.classList.toggle("dark", dark);
    for (const doc of Bokeh.documents) Look.paint(doc);
  },
  paint(doc) {
    const dark = Look.isDark();
    const ink = dark ? "#e8eaed" : "#1d1f23", line = dark ? "#8a9099" : "#6b7078";
    const paper = dark ? "#1e2125" : "#f7f7f8";
    const seen = (colour) => Look.contrast(colour, paper) > FAINT[dark ? "dark" : "light"];
    const set = (model, values) => {
      const known = Object.fromEntries(Object.entries(values).filter(([name]) => name in model.properties));
      if (Object.keys(known).length) model.setv(known);
    };
    for (const model of doc._all_models.values()) {
      const type = model.type || "";
      if (type.endsWith("Axis")) {
        set(model, {axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: line,
          major_tick_line_color: line});
      } else if (type === "Legend") {
        set(model, {label_text_color: ink, background_fill_color: paper});
      } else if (type === "ColorBar") {
        set(model, {major_label_text_color: ink, title_text_color: ink});
      } else if (type === "GlyphRenderer" && model.glyph.type === "Text") {
        model.glyph.text_color = {value: ink};
      } else if (type === "GlyphRenderer") {
        Look.lighten(model.glyph, dark);
      } else if (type === "LinearColorMapper") {
        model.whole ??= model.palette;
        model.palette = model.whole.filter(seen); // the lowest values have the faintest colour that is seen
      }
    }
  },
  // What is blue on light paper is lighter on dark, and thin lines are bolder: they would hardly be seen.
  lighten(glyph, dark) {
    const alpha = glyph.whole_alpha ??= glyph.line_alpha?.value;
    if (alpha > 0 && alpha < 1) glyph.line_alpha = {value: dark ? Math.min(1, BOLDER * alpha) : alpha};
    for (const name of ["line_color", "fill_color"]) {
      for (const pair of BLUES) {
        const [from, to] = dark ? pair : pair.toReversed();
        if (glyph[name]?.value === from) { glyph[name] = {value: to}; break; }
      }
    }
  },
  // How well a colour (#rrggbb) is seen on another one: from 1 to 21, as WCAG 2 reckons.
  contrast(one, other) {
    const light = (colour) => [1, 3, 5]
      .map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, n) => sum + part * [0.2126, 0.7152, 0.0722][n], 0);
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  },
  keys: "the arrows move it, + and - zoom, 0 shows all of it",
  // What a key does to the figures of a document: how far they move, and how wide they become (0: whole).
  press(doc, event) {
    const [x, y, width] = {ArrowLeft: [-0.1, 0, 1], ArrowRight: [0.1, 0, 1], ArrowUp: [0, 0.1, 1],
      ArrowDown: [0, -0.1, 1], "+": [0, 0, 0.8], "-": [0, 0, 1.25], 0: [0, 0, 0]}[event.key] ?? [];
    if (!doc || width === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const figures = [...doc._all_models.values()].filter((model) => model.type === "Figure");
    if (width === 0) return figures.forEach((figure) => Bokeh.index.find_one(figure)?.reset());
    const ranges = new Map(); // several figures may share one
    for (const figure of figures) ranges.set(figure.x_range, x).set(figure.y_range, y);
    for (const [range, step] of ranges) {
      const middle = (range.start + range.end) / 2, half = width * (range.end - range.start) / 2;
      const by = step * (range.end - range.start);
      range.have_updated_interactively = true; // so that what comes does not move it
      range.setv({start: middle - half + by, end: middle + half + by});
    }
  },
};
const prefers = window.matchMedia("(prefers-color-scheme: dark)");
