import { chosen, dashboard, WINDOW } from "../dashboard.ts";
import { lines, tile } from "../panels.ts";
import { perMinute } from "../shared-panels.ts";

const { of, buckets, counts } = chosen;
const jobs = (state: "waiting" | "running" | "dead") => `sum(max by (queue) (${of("primer_jobs", { state })}))`;

export const background = () =>
  dashboard({
    uid: "primer-background",
    title: "Background work",
    description: "Jobs, mails and what is done by the clock.",
    panels: [
      tile({
        title: "Waiting",
        about: "primer_jobs",
        alerts: ["QueueBacklog"],
        unit: "short",
        worry: [200, 1000],
        query: jobs("waiting"),
      }),
      tile({ title: "Running", about: "primer_jobs", unit: "short", query: jobs("running") }),
      tile({
        title: "Given up",
        about: "primer_jobs",
        alerts: ["DeadJobs"],
        unit: "short",
        worry: [1, 1],
        query: jobs("dead"),
      }),
      tile({
        title: "Oldest that waits",
        about: "primer_jobs_oldest_age_seconds",
        unit: "s",
        worry: [600, 3600],
        query: `max(${of("primer_jobs_oldest_age_seconds", { state: "waiting" })})`,
      }),
      tile({
        title: "Mails sent",
        about: "primer_mails_total",
        unit: "short",
        decimals: 0,
        query: `sum(increase(${of("primer_mails_total", { outcome: "sent" })}[$__range]))`,
      }),
      tile({
        title: "Mails put off or refused",
        about: "primer_mails_total",
        alerts: ["MailsNotSent"],
        unit: "short",
        decimals: 0,
        worry: [1, 100],
        query: `sum(increase(${of("primer_mails_total", { outcome: "=~deferred|refused" })}[$__range]))`,
      }),
      lines({
        title: "Jobs",
        about: "primer_jobs",
        alerts: ["QueueBacklog", "DeadJobs"],
        unit: "short",
        queries: { "{{state}}": `sum by (state) (max by (queue, state) (${of("primer_jobs")}))` },
      }),
      lines({
        title: "Age of the oldest",
        about: "primer_jobs_oldest_age_seconds",
        unit: "s",
        queries: {
          "{{queue}}, {{state}}": `max by (queue, state) (${of("primer_jobs_oldest_age_seconds", { state: "=~waiting|running" })})`,
        },
      }),
      lines({
        title: "Runs by how they ended",
        about: "primer_job_duration_seconds",
        unit: "opm",
        stacked: true,
        queries: { "{{outcome}}": perMinute(counts("primer_job_duration_seconds"), "outcome") },
      }),
      lines({
        title: "How long jobs run",
        about: "primer_job_duration_seconds",
        unit: "s",
        queries: Object.fromEntries(
          [0.5, 0.95].map((quantile) => [
            `{{queue}}, p${quantile * 100}`,
            `histogram_quantile(${quantile}, sum by (queue, le) (rate(${buckets("primer_job_duration_seconds")}[${WINDOW}])))`,
          ]),
        ),
      }),
      lines({
        title: "Mails",
        about: "primer_mails_total",
        alerts: ["MailsNotSent"],
        unit: "opm",
        stacked: true,
        queries: { "{{outcome}}": perMinute(of("primer_mails_total"), "outcome") },
      }),
      lines({
        title: "Bad networks that are known",
        about: "primer_threat_networks",
        unit: "short",
        queries: { networks: `max(${of("primer_threat_networks")})` },
      }),
      lines({
        title: "Lists of bad networks, tries within an hour",
        about: "primer_threat_refreshes_total",
        unit: "short",
        queries: { "{{outcome}}": `sum by (outcome) (increase(${of("primer_threat_refreshes_total")}[1h]))` },
      }),
      lines({
        title: "Schedules, runs within an hour",
        about: "primer_schedule_runs_total",
        alerts: ["ScheduleFailed"],
        unit: "short",
        queries: {
          "{{schedule}}, {{outcome}}": `sum by (schedule, outcome) (increase(${of("primer_schedule_runs_total")}[1h]))`,
        },
      }),
    ],
  });
