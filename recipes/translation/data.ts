/**
 * English to Chinese: the messages of programs, from the catalogues in their Debian packages. No text of them is
 * committed.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { readCatalogue } from "../lib/catalogue.js";
import type { Recipe } from "../lib/data.js";
import { debian } from "../lib/packages.js";
import { split } from "../lib/split.js";

const PACKAGES = [
  "adduser", "appstream", "apt", "at-spi2-common", "bash", "binutils-common", "coreutils", "diffutils", "dpkg", "findutils", "gettext", "git", "gnupg-l10n",
  "grep", "gsettings-desktop-schemas", "iso-codes", "libapt-pkg6.0", "libavahi-common-data", "libc-l10n", "libgdk-pixbuf2.0-common", "libglib2.0-data",
  "libgnutls30", "libgstreamer1.0-0", "libgtk2.0-common", "libgtk-3-common", "libidn2-0", "libpam-runtime", "libpq5", "login", "make", "man-db",
  "packagekit", "polkitd", "postgresql-15", "postgresql-client-15", "procps", "psmisc", "python-apt-common", "sed", "shared-mime-info",
  "software-properties-common", "systemd", "tar", "wget", "xdg-user-dirs", "xkb-data", "xz-utils", "aisleriot", "aptitude-common", "audacity-data",
  "brasero-common", "caja-common", "cheese-common", "cinnamon-l10n", "cryptsetup-bin", "deluge-common", "dolphin", "epiphany-browser-data",
  "evolution-common", "evolution-data-server-common", "filezilla-common", "geany-common", "gedit-common", "gnome-control-center-data", "gnome-shell-common",
  "gnome-software-common", "gnome-terminal-data", "gnucash-common", "gnumeric-common", "gparted-common", "hexchat-common", "kio", "kmail", "konsole",
  "konversation-data", "libreoffice-l10n-zh-cn", "meld", "nautilus-data", "network-manager", "okular", "pidgin-data", "rhythmbox-data", "shotwell-common",
  "synaptic", "thunar-data", "totem-common", "util-linux-locales", "vlc-l10n",
];

interface Pair {
  source: string;
  target: string;
}

/** Marks of keyboard shortcuts, and the spaces around, are no language. */
const clean = (text: string): string =>
  text.replace(/[（(][_&~][A-Za-z0-9][)）]/g, "").replace(/[_&~](?=[\p{L}\p{N}])/gu, "").replace(/\s+/g, " ").trim();

function pair([source, target]: readonly [string, string]): Pair | undefined {
  if (/\n(?!$)/.test(source) || /\n(?!$)/.test(target)) return undefined;
  const row = { source: clean(source), target: clean(target) };
  const fits = row.source.length <= 200 && row.target.length <= 120 && /[A-Za-z]{2}/.test(row.source) && /\p{Script=Han}/u.test(row.target);
  // Options of commands and tables of columns are layout more than language.
  return fits && !/^-|^\s*--|\t/.test(row.source) ? row : undefined;
}

async function* pairs(): AsyncGenerator<Pair> {
  for (const unpacked of await debian(...PACKAGES)) {
    for (const file of (await readdir(unpacked, { recursive: true })).sort().filter((file) => file.includes("/zh_CN/") && file.endsWith(".mo"))) {
      for (const row of readCatalogue(await readFile(join(unpacked, file)))) {
        const found = pair(row);
        if (found) yield found;
      }
    }
  }
}

export const recipe: Recipe = {
  sources: PACKAGES.map((name) => ({
    package: `Debian 12 ${name}`,
    what: "its zh_CN catalogues: single-line messages and their translations",
    license: "the package's own (usr/share/doc/*/copyright)",
  })),
  async read() {
    const rows: Pair[] = [];
    for await (const row of pairs()) rows.push(row);
    // A message has one translation here; what is translated in several ways stands on one side.
    return split(rows, { group: ({ source }) => source, texts: ({ source, target }) => [source, target] }, { heldout: 20, validation: 40 });
  },
};
