import { i18n } from "@lingui/core";
import { compileMessage } from "@lingui/message-utils/compileMessage";
import { useLingui } from "@lingui/react";
import { useMemo } from "react";
import { en, type MessageId } from "./en.ts";
import { fr } from "./fr.ts";

export type { MessageId } from "./en.ts";

/** The languages of the page. */
export type Language = "en" | "fr";

const KEPT = "torncat:language";

i18n.setMessagesCompiler(compileMessage);
i18n.load({ en, fr });

/** The language last chosen, else the first of the browser's that the page has, else English. */
export function initialLanguage(stored: string | null, wished: readonly string[]): Language {
  if (stored === "en" || stored === "fr") return stored;
  const found = wished.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => tag === "fr" || tag === "en");
  return found === "fr" ? "fr" : "en";
}

/** Speak this language from now on; `keep`: on later visits too. */
export function speak(language: Language, keep: boolean): void {
  if (keep) localStorage.setItem(KEPT, language);
  document.documentElement.lang = language;
  i18n.activate(language);
}

/** Begin in the visitor's language. */
export function startSpeaking(): void {
  speak(initialLanguage(localStorage.getItem(KEPT), navigator.languages), false);
}

/** What `Accept-Language` should say. */
export function spokenLanguage(): string {
  return i18n.locale;
}

/** What a component needs to speak. */
export interface Voice {
  readonly language: Language;
  readonly say: (id: MessageId, values?: Record<string, string | number>) => string;
  readonly number: (value: number, digits?: number) => string;
  /** A span of time in milliseconds, short: `2.4 ms`, `1.2 s`. */
  readonly span: (value_ms: number) => string;
}

/** The voice of the current language; a component that uses it renders anew when the language changes. */
export function useVoice(): Voice {
  const { i18n: current } = useLingui();
  const language: Language = current.locale === "fr" ? "fr" : "en";
  return useMemo(() => voiceOf(language), [language]);
}

function voiceOf(language: Language): Voice {
  const number = (value: number, digits = 0): string =>
    value.toLocaleString(language, { maximumFractionDigits: digits, minimumFractionDigits: digits });
  const span = (value_ms: number): string => {
    const size = Math.abs(value_ms);
    if (size >= 9_950) return `${number(value_ms / 1000)}\u202fs`;
    if (size >= 995) return `${number(value_ms / 1000, 1)}\u202fs`;
    return `${number(value_ms, size < 99.5 ? 1 : 0)}\u202fms`;
  };
  return { language, say: (id, values) => i18n._(id, values), number, span };
}
