/** Light, dark, or as the system has it; the choice is kept in the browser. */

export type Theme = "system" | "light" | "dark";

class Appearance {
  chosen = $state<Theme>((localStorage.getItem("theme") as Theme | null) ?? "system");

  choose(theme: Theme): void {
    this.chosen = theme;
    localStorage.setItem("theme", theme);
    document.documentElement.dataset.theme = theme;
  }
}

export const theme = new Appearance();
document.documentElement.dataset.theme = theme.chosen;
