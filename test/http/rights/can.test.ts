import { describe, expect, test } from "bun:test";
import { can, isPermission } from "../../../server/features/rights/service.ts";

interface Case {
  readonly granted: readonly string[];
  readonly asked: string;
  readonly allowed: boolean;
}

const CASES: readonly Case[] = [
  { granted: ["users:read"], asked: "users:read", allowed: true },
  { granted: ["users:read"], asked: "users:write", allowed: false },
  { granted: ["users:read"], asked: "orders:read", allowed: false },
  { granted: ["users:*"], asked: "users:read", allowed: true },
  { granted: ["users:*"], asked: "users:delete-all", allowed: true },
  { granted: ["users:*"], asked: "user:read", allowed: false },
  { granted: ["users:*"], asked: "users2:read", allowed: false },
  { granted: ["*:read"], asked: "orders:read", allowed: true },
  { granted: ["*:read"], asked: "orders:write", allowed: false },
  { granted: ["*:*"], asked: "anything:at-all", allowed: true },
  { granted: ["orders:read", "users:write"], asked: "users:write", allowed: true },
  { granted: ["orders:read", "users:write"], asked: "users:read", allowed: false },
  { granted: ["orders:read", "users:write"], asked: "orders:write", allowed: false },
  { granted: [], asked: "users:read", allowed: false },
  // Asking for everything is only granted to whoever has everything.
  { granted: ["users:read"], asked: "users:*", allowed: false },
  { granted: ["users:*"], asked: "*:*", allowed: false },
  { granted: ["users:*"], asked: "users:*", allowed: true },
  { granted: ["*:*"], asked: "*:*", allowed: true },
  // What is no permission is neither granted nor does it grant.
  { granted: ["*:*"], asked: "users", allowed: false },
  { granted: ["*:*"], asked: "", allowed: false },
  { granted: ["*:*"], asked: ":", allowed: false },
  { granted: ["*:*"], asked: "users:", allowed: false },
  { granted: ["*:*"], asked: ":read", allowed: false },
  { granted: ["*:*"], asked: "users:read:own", allowed: false },
  { granted: ["*:*"], asked: "Users:read", allowed: false },
  { granted: ["*:*"], asked: "users:read ", allowed: false },
  { granted: ["*:*"], asked: "users:read\n", allowed: false },
  { granted: ["*:*"], asked: "us*:read", allowed: false },
  { granted: ["*:*"], asked: `${"a".repeat(64)}:read`, allowed: false },
  { granted: ["*"], asked: "users:read", allowed: false },
  { granted: ["users"], asked: "users:read", allowed: false },
  { granted: ["us*:read"], asked: "users:read", allowed: false },
  { granted: ["*:*:*"], asked: "users:read", allowed: false },
  { granted: [" *:*"], asked: "users:read", allowed: false },
  { granted: ["users:read,orders:read"], asked: "orders:read", allowed: false },
  { granted: ["USERS:READ"], asked: "users:read", allowed: false },
];

describe("can", () => {
  // One function decides every permission: a star stands for one whole side, and nothing malformed is ever granted.
  for (const { granted, asked, allowed } of CASES) {
    test(`${JSON.stringify(granted)} ${allowed ? "may" : "may not"} ${JSON.stringify(asked)}`, () => {
      expect(can({ permissions: granted }, asked)).toBe(allowed);
    });
  }

  test("what a permission looks like", () => {
    for (const text of ["users:read", "*:read", "users:*", "*:*", "a:b", "audit_log:read-all", "x9:y9"])
      expect(isPermission(text)).toBe(true);
    for (const text of ["", "users", "9users:read", "-a:b", "a:b:c", "a b:c", "a:ü", "__proto__", "a:*b"])
      expect(isPermission(text)).toBe(false);
  });
});
