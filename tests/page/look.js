// What tests/page/test_browser.py asks a page; each function is run by its name.

const looks = {
  // Texts and shapes that stand out too little from what is behind them (WCAG 2.2, AA).
  faint() {
    const number = (color) => {
      const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number);
      return { rgb: [r, g, b], a };
    };
    const over = (front, back) => front.rgb.map((c, i) => c * front.a + back[i] * (1 - front.a));
    const light = (rgb) =>
      rgb
        .map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const contrast = (a, b) => {
      const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
      return (high + 0.05) / (low + 0.05);
    };
    const behind = (element) => {
      let layers = [];
      for (let e = element; e; e = e.parentElement) layers.push(number(getComputedStyle(e).backgroundColor));
      return layers.reverse().reduce((back, layer) => over(layer, back), [255, 255, 255]);
    };
    const found = [];
    const check = (element, color, least, what) => {
      const ratio = contrast(over(number(color), behind(element)), behind(element));
      if (ratio < least) found.push(`${what} ${color} ${ratio.toFixed(2)} < ${least}`);
    };
    let checked = 0;
    for (const element of document.querySelectorAll("body *:not(script)")) {
      const style = getComputedStyle(element);
      const inSvg = element instanceof SVGElement;
      if (!element.checkVisibility() || ["title", "desc"].includes(element.tagName)) continue;
      const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
      const px = parseFloat(style.fontSize);
      const isLarge = px >= 24 || (px >= 18.66 && Number(style.fontWeight) >= 700);
      if (words) check(element, inSvg ? style.fill : style.color, isLarge ? 3 : 4.5, element.outerHTML.slice(0, 80));
      const after = getComputedStyle(element, "::after");
      if (!["none", "normal"].includes(after.content)) check(element, after.color, 3, "arrow");
      if (/^(rect|circle)$/.test(element.tagName)) check(element, style.fill, 3, element.outerHTML.slice(0, 60));
      if (element.matches("polyline.curve, line.mark, line.base")) check(element, style.stroke, 3, element.outerHTML.slice(0, 60));
      checked += 1;
    }
    return [checked, found];
  },

  // Whether the page can be scrolled sideways, and what sticks out of its picture.
  wide() {
    const found = [];
    const page = document.documentElement;
    if (page.scrollWidth > page.clientWidth) found.push(`page: ${page.scrollWidth} > ${page.clientWidth}`);
    for (const svg of document.querySelectorAll("svg")) {
      if (!svg.checkVisibility()) continue;
      const frame = svg.getBoundingClientRect();
      for (const shape of svg.querySelectorAll("text, rect, line, circle")) {
        const box = shape.getBoundingClientRect();
        if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
          found.push(`${svg.getAttribute("class")}: ${shape.outerHTML}`);
      }
      const labels = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
      for (const [i, [one, a]] of labels.entries())
        for (const [other, b] of labels.slice(i + 1))
          if (a.left < b.right && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom)
            found.push(`${svg.getAttribute("class")}: "${one}" over "${other}"`);
    }
    return found;
  },

  // How each table is sorted: by heading, and what its column is sorted by, from top to bottom.
  tables() {
    return [...document.querySelectorAll("table")].map((table) =>
      [...table.tHead.rows[0].cells].map((heading, column) => ({
        sort: heading.getAttribute("aria-sort"),
        isText: heading.classList.contains("key") || heading.classList.contains("text"),
        orders: [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.order),
      })),
    );
  },

  pictures() {
    return [...document.querySelectorAll("figure")].map(
      (figure) => [...figure.querySelectorAll("svg")].filter((svg) => svg.checkVisibility()).map((svg) => svg.getAttribute("class")),
    );
  },
};
