export { mayChangeAudit } from "../../../db/queries/audit-months.ts";
export { forgetErased, forgetFirst, forgetRest } from "./forget-callers.ts";
export { dropAuditMonths, makeAuditMonths } from "./keep-months.ts";
export { type AuditView, type EventPage, type EventQuery, filterOf, listEventPage } from "./list-events.ts";
export { type AuditAction, type AuditEvent, audit, auditRefusal, auditStatement } from "./record.ts";
export { recordExport } from "./record-export.ts";
export { type ChainHead, createSealer, findOverdueSince, isOverdue, SEALING_LOCK } from "./seal-log.ts";
export { type ChainReader, type ChainReport, chainReaderOn, verifyChain } from "./verify-log.ts";
