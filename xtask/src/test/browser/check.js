// What is wrong with the report page as it is shown now: a list of sentences. Everything
// that can be unfolded is.
(() => {
  const wrong = [];
  const say = (what, element) => {
    const text = element ? `: ${element.outerHTML.slice(0, 120)}` : "";
    wrong.push(what + text);
  };
  document.querySelectorAll("details").forEach((details) => (details.open = true));
  const shown = (element) => element.getClientRects().length > 0;
  const all = (selector, root) => [...(root ?? document).querySelectorAll(selector)];

  // The page is as wide as the window; only boxes that scroll hold what is wider.
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) {
    say(`the page is ${document.documentElement.scrollWidth} px wide in ${width} px`);
  }
  for (const element of all("body *")) {
    const box = element.getBoundingClientRect();
    const inside = element.closest(".scroll") && !element.matches(".scroll");
    if (!inside && !element.closest("svg *, .unseen") && box.width && box.right > width + 1) {
      say(`it ends at ${Math.round(box.right)} of ${width} px`, element);
    }
  }

  // Each plot is there, has marks, and text that can be read and is not cut off.
  for (const figure of all("figure[data-plot]")) {
    const plots = all("svg", figure).filter(shown);
    if (plots.length !== 1) {
      say(`${plots.length} drawings are shown of this plot`, figure);
      continue;
    }
    const [plot] = plots;
    const named = (attribute) => {
      const id = plot.getAttribute(attribute);
      return id && document.getElementById(id)?.textContent.trim();
    };
    if (plot.getAttribute("role") !== "img" || !named("aria-labelledby") || !named("aria-describedby")) {
      say("a plot without role, title or description", plot);
    }
    const marks = all(".mark", plot).filter((mark) => {
      const box = mark.getBBox();
      return box.width + box.height > 0;
    });
    if (!marks.length) say("a plot without marks", plot);
    const edge = plot.getBoundingClientRect();
    for (const text of all("text", plot)) {
      const size = parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a;
      if (size < 10.5) say(`text of ${size.toFixed(1)} px`, text);
      const box = text.getBoundingClientRect();
      if (box.left < edge.left - 2 || box.right > edge.right + 2 || box.bottom > edge.bottom + 2) {
        say("text that leaves its plot", text);
      }
    }
  }

  // Text stands out from what is behind it by 4.5 to 1, a mark by 3 to 1.
  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((channel) => {
      const part = channel / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const contrast = (element, colour, least) => {
    const [a, b] = [luminance(colour), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least) say(`a contrast of ${ratio.toFixed(2)}, not ${least}`, element);
  };
  for (const element of all("body *").filter(shown)) {
    const style = getComputedStyle(element);
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (element.matches("svg text")) contrast(element, style.fill, 4.5);
    else if (element.matches("svg .mark .median, svg .mark .whisker, svg .mark .line")) {
      contrast(element, style.stroke, 3);
    } else if (own && !element.closest("svg")) contrast(element, style.color, 4.5);
  }

  // Structure: a heading is at most one level below the one before; tables have captions.
  let before = 0;
  for (const heading of all("h1, h2, h3, h4, h5, h6")) {
    const level = Number(heading.tagName[1]);
    if (level > before + 1) say(`a heading of level ${level} after one of ${before}`, heading);
    before = level;
  }
  for (const table of all("table")) {
    if (!table.caption?.textContent.trim()) say("a table without a caption", table);
  }
  const ids = all("[id]").map((element) => element.id);
  const twice = ids.find((id, at) => ids.indexOf(id) !== at);
  if (twice) say(`the id ${twice} is there twice`);
  for (const link of all("a")) {
    if (!document.getElementById(link.hash.slice(1))) say("a link to nowhere", link);
  }

  return {
    wrong,
    plots: all("figure[data-plot]").length,
    background: getComputedStyle(document.body).backgroundColor,
    height: document.documentElement.scrollHeight,
    markup: document.scripts.length,
  };
})()
