// What a page looks like to somebody who needs contrast, a keyboard or a small screen; an expression of functions.
({
  /** Every visible text with the contrast to what is behind it (WCAG 2.2, relative luminance). */
  texts() {
    const numbers = (color) => {
      const [r, g, b, a = 1] = color.match(/[\d.e-]+/g).map(Number);
      return { r, g, b, a };
    };
    const mixed = (top, below, part) => top[part] * top.a + below[part] * (1 - top.a);
    const over = (top, below) => ({ r: mixed(top, below, "r"), g: mixed(top, below, "g"), b: mixed(top, below, "b"), a: 1 });
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const light = ({ r, g, b }) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const ground = (node) => {
      if (!node) return numbers("rgb(255, 255, 255)");
      const own = numbers(getComputedStyle(node).backgroundColor);
      return own.a === 1 ? own : over(own, ground(node.parentElement));
    };
    const measured = (node, style, words) => {
      const isDrawn = node instanceof SVGElement;
      const own = light(numbers(isDrawn ? style.fill : style.color));
      const behind = light(ground(isDrawn ? node.closest("div") : node));
      const size = parseFloat(style.fontSize);
      const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      return { words, ratio: (Math.max(own, behind) + 0.05) / (Math.min(own, behind) + 0.05), isLarge };
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const [words, node] = [walker.currentNode.data.trim(), walker.currentNode.parentElement];
      if (words && node.checkVisibility()) found.push(measured(node, getComputedStyle(node), words));
    }
    for (const input of document.querySelectorAll("input[placeholder]")) {
      if (input.checkVisibility()) found.push(measured(input, getComputedStyle(input, "::placeholder"), input.placeholder));
    }
    return found;
  },

  /** Puts the focus before the page and numbers all that the tab key should reach; tells how many there are. */
  number() {
    document.body.tabIndex = -1;
    document.body.focus();
    const isOther = (one) => one.matches("[type=radio]:not(:checked)"); // a group of radios is one stop
    const all = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex]")]
      .filter((one) => one.tabIndex >= 0 && !one.disabled && one.checkVisibility() && !isOther(one));
    all.forEach((one, place) => (one.dataset.place = place));
    return all.length;
  },

  /** Where the focus is, and whether it is seen there. */
  focused() {
    const one = document.activeElement;
    const shown = one.matches("[type=radio]") ? one.nextElementSibling : one;
    const { outlineStyle, outlineWidth } = getComputedStyle(shown);
    const isSeen = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && shown.getBoundingClientRect().width > 0;
    return { place: one.dataset.place ?? null, suggests: one.role === "combobox", isSeen };
  },

  /** What reaches beyond the right edge of the screen, but for what scrolls by itself or is cut off on purpose. */
  outside() {
    return [...document.querySelectorAll("main *")]
      .filter((one) => one.checkVisibility() && !one.closest(".unseen, svg, .scroll-box, .bar"))
      .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
      .map((one) => one.outerHTML.slice(0, 80));
  },

  /** By how many pixels the page can be scrolled sideways. */
  reach() {
    return document.documentElement.scrollWidth - document.documentElement.clientWidth;
  },

  /** Counts in `window.glides` how many rows are moved. */
  countGlides() {
    const before = Element.prototype.animate;
    window.glides = 0;
    Element.prototype.animate = function (...given) {
      window.glides += 1;
      return before.apply(this, given);
    };
  },

  /** Keeps in `window.heard` what the list of changes has said. */
  listen() {
    const told = document.getElementById("changes");
    window.heard = [];
    const note = () => told.textContent && window.heard.push(told.textContent);
    new MutationObserver(note).observe(told, { childList: true, characterData: true, subtree: true });
  },
})
