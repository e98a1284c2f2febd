import { useState, type ReactNode } from "react";
import { speak, useVoice, type Language } from "../../lib/i18n/index.ts";
import { chosenTheme, chooseTheme, type Theme } from "../../lib/theme.ts";

const LANGUAGES: readonly (readonly [Language, string])[] = [
  ["en", "English"],
  ["fr", "Français"],
];

const NEXT: Readonly<Record<Theme, Theme>> = { system: "light", light: "dark", dark: "system" };

/** Language and colours. */
export function Preferences(): ReactNode {
  return (
    <div className="flex gap-1.5">
      <LanguageSwitch />
      <ThemeButton />
    </div>
  );
}

function LanguageSwitch(): ReactNode {
  const { say, language } = useVoice();
  return (
    <div
      role="group"
      aria-label={say("preferences.language")}
      className="flex rounded-lg border border-line bg-raised p-0.5 hover:border-line-strong"
    >
      {LANGUAGES.map(([code, name]) => (
        <button
          key={code}
          type="button"
          lang={code}
          aria-label={name}
          aria-pressed={code === language}
          onClick={() => speak(code, true)}
          className="min-h-7.5 rounded-md px-2 text-xs font-medium text-soft uppercase hover:text-ink aria-pressed:bg-sunken aria-pressed:text-ink"
        >
          {code}
        </button>
      ))}
    </div>
  );
}

function ThemeButton(): ReactNode {
  const { say } = useVoice();
  const [theme, setTheme] = useState(chosenTheme);
  const label = say(`preferences.theme.${theme}`);
  const choose = (): void => {
    setTheme(NEXT[theme]);
    chooseTheme(NEXT[theme]);
  };
  return (
    <button
      type="button"
      onClick={choose}
      aria-label={label}
      title={label}
      className="grid size-9 place-items-center rounded-lg border border-line bg-raised hover:border-line-strong"
    >
      <svg viewBox="0 0 16 16" className="size-4" aria-hidden="true">
        <ThemeSign theme={theme} />
      </svg>
    </button>
  );
}

function ThemeSign({ theme }: { readonly theme: Theme }): ReactNode {
  const line = { fill: "none", stroke: "currentColor", strokeWidth: 1.4, strokeLinecap: "round" } as const;
  if (theme === "dark") return <path d="M13.2 10A5.8 5.8 0 0 1 6 2.8 5.8 5.8 0 1 0 13.2 10Z" {...line} />;
  if (theme === "system") {
    return (
      <>
        <circle cx="8" cy="8" r="5.6" {...line} />
        <path d="M8 2.4a5.6 5.6 0 0 1 0 11.2Z" fill="currentColor" />
      </>
    );
  }
  return (
    <>
      <circle cx="8" cy="8" r="2.8" {...line} />
      <path d="M8 1v1.4M8 13.6V15M1 8h1.4M13.6 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1" {...line} />
    </>
  );
}
