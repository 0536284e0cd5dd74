import { chosen, dashboard } from "../dashboard.ts";
import { lines, tile } from "../panels.ts";

const { of } = chosen;
const DAY = 86_400;

export const keysAndBackups = () =>
  dashboard({
    uid: "primer-keys-and-backups",
    title: "Keys and backups",
    description: "What is renewed from time to time, and how old it is by now.",
    panels: [
      tile({
        title: "Signing key",
        about: "primer_key_age_seconds",
        alerts: ["KeyTooOld"],
        unit: "s",
        query: `max(${of("primer_key_age_seconds", { use: "signing" })})`,
      }),
      tile({
        title: "Signing key is replaced at",
        about: "primer_key_rotation_interval_seconds",
        unit: "s",
        empty: "by hand",
        query: `max(${of("primer_key_rotation_interval_seconds")})`,
      }),
      tile({
        title: "Refresh key",
        about: "primer_key_age_seconds",
        alerts: ["KeyTooOld"],
        unit: "s",
        worry: [300 * DAY, 365 * DAY],
        query: `max(${of("primer_key_age_seconds", { use: "refresh" })})`,
      }),
      tile({
        title: "Last backup that was proven",
        about: "primer_backup_verified_age_seconds",
        alerts: ["BackupTooOld"],
        unit: "s",
        worry: [1.1 * DAY, 2 * DAY],
        empty: "never",
        query: `max(${of("primer_backup_verified_age_seconds")})`,
      }),
      tile({
        title: "Certificate is good for",
        about: "primer_certificate_expires_seconds",
        alerts: ["CertificateExpires"],
        unit: "s",
        worry: [25 * DAY, 14 * DAY],
        empty: "none here",
        query: `min(${of("primer_certificate_expires_seconds")})`,
      }),
      tile({
        title: "Audit log not sealed since",
        about: "primer_audit_unsealed_age_seconds",
        alerts: ["AuditUnsealed"],
        unit: "s",
        worry: [60, 300],
        empty: "not known",
        query: `max(${of("primer_audit_unsealed_age_seconds")})`,
      }),
      lines({
        title: "Age of keys",
        about: "primer_key_age_seconds",
        alerts: ["KeyTooOld"],
        unit: "s",
        queries: {
          "{{use}}": `max by (use) (${of("primer_key_age_seconds")})`,
          "signing, to be replaced at": `max(${of("primer_key_rotation_interval_seconds")})`,
        },
      }),
      lines({
        title: "Age of the last backup that was proven",
        about: "primer_backup_verified_age_seconds",
        alerts: ["BackupTooOld"],
        unit: "s",
        limit: 2 * DAY,
        queries: {
          "last proven backup": `max(${of("primer_backup_verified_age_seconds")})`,
          "the installation itself": `max(${of("primer_installation_age_seconds")})`,
        },
      }),
      lines({
        title: "Audit log not sealed since",
        about: "primer_audit_unsealed_age_seconds",
        alerts: ["AuditUnsealed"],
        unit: "s",
        limit: 300,
        queries: { "oldest row": `max(${of("primer_audit_unsealed_age_seconds")})` },
      }),
      lines({
        title: "Backups, runs within a day",
        about: "primer_schedule_runs_total",
        alerts: ["ScheduleFailed"],
        unit: "short",
        queries: {
          "{{outcome}}": `sum by (outcome) (increase(${of("primer_schedule_runs_total", { schedule: "backup" })}[1d]))`,
        },
      }),
    ],
  });
