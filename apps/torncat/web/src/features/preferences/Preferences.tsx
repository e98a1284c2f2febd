import { useState, type ReactNode } from "react";
import { speak, useVoice, type Language } from "../../lib/i18n/index.ts";
import { chosenTheme, chooseTheme, type Theme } from "../../lib/theme.ts";

const LANGUAGES: readonly (readonly [Language, string])[] = [
  ["en", "English"],
  ["fr", "Français"],
];

/** Language and colours. */
export function Preferences(): ReactNode {
  const { say, language } = useVoice();
  const [theme, setTheme] = useState(chosenTheme);
  const choose = (next: Theme): void => {
    setTheme(next);
    chooseTheme(next);
  };
  return (
    <div className="flex gap-1.5">
      <Choice label={say("preferences.language")} value={language} onChange={(next) => speak(next as Language, true)}>
        {LANGUAGES.map(([code, name]) => (
          <option key={code} value={code} lang={code}>
            {name}
          </option>
        ))}
      </Choice>
      <Choice label={say("preferences.theme")} value={theme} onChange={(next) => choose(next as Theme)}>
        {(["system", "light", "dark"] as const).map((name) => (
          <option key={name} value={name}>
            {say(`preferences.theme.${name}`)}
          </option>
        ))}
      </Choice>
    </div>
  );
}

function Choice(props: {
  readonly label: string;
  readonly value: string;
  readonly onChange: (value: string) => void;
  readonly children: ReactNode;
}): ReactNode {
  return (
    <select
      aria-label={props.label}
      title={props.label}
      value={props.value}
      onChange={(event) => props.onChange(event.target.value)}
      className="min-h-9 rounded-lg border border-line bg-raised px-2 text-ink hover:border-line-strong"
    >
      {props.children}
    </select>
  );
}
