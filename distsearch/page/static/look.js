// Light and dark: figures of Bokeh take the colours of the page around them.
"use strict";
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
      }
    }
  },
};
const prefers = window.matchMedia("(prefers-color-scheme: dark)");
