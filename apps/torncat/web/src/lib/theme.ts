/** What the visitor wants: the system's colours, or always the same. */
export type Theme = "system" | "light" | "dark";

const KEPT = "torncat:theme";

/** The theme last chosen, else the system's. */
export function chosenTheme(): Theme {
  const kept = localStorage.getItem(KEPT);
  return kept === "light" || kept === "dark" ? kept : "system";
}

/** Show this theme from now on, on later visits too. */
export function chooseTheme(theme: Theme): void {
  localStorage.setItem(KEPT, theme);
  showTheme(theme);
}

/** Show a theme. */
export function showTheme(theme: Theme): void {
  if (theme === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
}
