// The signs on the buttons: own line drawings on a grid of 24 by 24. Each button says in words what it does; these only help to find it.

const PATHS = {
  mic: "M12 3a3 3 0 0 1 3 3v6a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3zM6 11v1a6 6 0 0 0 12 0v-1M12 18v3",
  micOff: "M12 3a3 3 0 0 1 3 3v6a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3zM6 11v1a6 6 0 0 0 12 0v-1M12 18v3M4 4l16 16",
  talk: "M4 10v4M8 7v10M12 4v16M16 7v10M20 10v4",
  camera: "M3 7h12v10H3zM15 11l6-3v8l-6-3z",
  screen: "M3 5h18v11H3zM9 20h6M12 16v4M12 13V8M9.5 10.5L12 8l2.5 2.5",
  gear: "M4 7h10M18 7h2M4 17h2M10 17h10M14 4.5v5h4v-5zM6 14.5v5h4v-5z",
  view: "M3 4h12v16H3zM18 4h3v4h-3zM18 10h3v4h-3zM18 16h3v4h-3z",
  people: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c0-4 3-6 6.500-6s6.500 2 6.500 6M16 4.500a3.500 3.500 0 0 1 0 6.500M18 14.500c2.500.8 3.500 2.800 3.500 5.500",
  chat: "M3 4h18v12H10l-5 4v-4H3zM7 8.500h10M7 12h6",
  figures: "M3 20h18M5 16l4-6 4 3 6-9",
  full: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  help: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM9.500 9.500a2.500 2.500 0 1 1 3.500 2.300c-.7.3-1 .8-1 1.700v.5M12 17v.2",
  leave: "M10 4H4v16h6M9 12h11M16 8l4 4-4 4",
  close: "M5 5l14 14M19 5L5 19",
  hand: "M7 12V6a1.500 1.500 0 0 1 3 0v5V4a1.500 1.500 0 0 1 3 0v7V5a1.500 1.500 0 0 1 3 0v7V8a1.500 1.500 0 0 1 3 0v7c0 4-3 6-6 6-3.500 0-5-2-6.500-4.500L4.300 13a1.500 1.500 0 0 1 2.500-1.500L8 13.500",
  pause: "M8 5v14M16 5v14",
  house: "M3 12l9-8 9 8M6 10v10h12V10M10 20v-6h4v6",
  remote: "M4 20a12 12 0 0 1 16-16M8 20a8 8 0 0 1 12-12M12 20a4 4 0 0 1 8-8M17 20a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  octagon: "M8 3h8l5 5v8l-5 5H8l-5-5V8zM12 7v6M12 16.500v.2",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1.500 1.500M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1.500-1.500",
} as const;

export type Icon = keyof typeof PATHS;

const SVG = "http://www.w3.org/2000/svg";

export function icon(name: Icon): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  svg.append(path);
  setIcon(svg, name);
  return svg;
}

export function setIcon(svg: SVGSVGElement, name: Icon): void {
  const path = svg.firstElementChild;
  if (path !== null && path.getAttribute("d") !== PATHS[name]) path.setAttribute("d", PATHS[name]);
}
