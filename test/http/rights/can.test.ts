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

  // A role on one thing reaches that thing and what is under it, and nothing beside it.
  const GRANTS = [
    { resource: "tenants/acme", permissions: ["orders:read", "invoices:*"] },
    { resource: "orders/17", permissions: ["orders:write"] },
  ];
  test.each([
    ["orders:read", "tenants/acme", true],
    ["orders:read", "tenants/acme/orders/3", true],
    ["invoices:pay", "tenants/acme/invoices/9", true],
    ["orders:write", "orders/17", true],
    ["orders:write", "orders/17/lines", true],
    ["orders:read", undefined, false],
    ["orders:read", "tenants", false],
    ["orders:read", "tenants/acme2", false],
    ["orders:read", "tenants/acm", false],
    ["orders:read", "tenants/Acme", false],
    ["orders:write", "tenants/acme", false],
    ["orders:write", "orders/18", false],
    ["invoices:*", "tenants/acme", true],
    ["orders:*", "tenants/acme", false],
    // What is no name of a thing is on nothing, and climbs nowhere.
    ["orders:read", "", false],
    ["orders:read", "tenants/acme/", false],
    ["orders:read", "/tenants/acme", false],
    ["orders:read", "tenants/acme/../other", false],
    ["orders:read", "tenants/acme/./x", false],
    ["orders:read", "tenants/acme//x", false],
    ["orders:read", "tenants/acme/%2e%2e", false],
    ["orders:read", "tenants/acme/a b", false],
    ["orders:read", "tenants/acme\n", false],
    ["orders:read", `tenants/acme/${"a".repeat(129)}`, false],
  ] as const)("%s on %j: %p", (asked, resource, allowed) => {
    expect(can({ permissions: ["users:read"], grants: GRANTS }, asked, resource)).toBe(allowed);
  });

  test("what is given everywhere is given on everything that has a name", () => {
    expect(can({ permissions: ["orders:*"] }, "orders:read", "tenants/acme")).toBe(true);
    expect(can({ permissions: ["*:*"] }, "orders:read", "../acme")).toBe(false);
  });

  test("what a permission looks like", () => {
    for (const text of ["users:read", "*:read", "users:*", "*:*", "a:b", "audit_log:read-all", "x9:y9"])
      expect(isPermission(text)).toBe(true);
    for (const text of ["", "users", "9users:read", "-a:b", "a:b:c", "a b:c", "a:ü", "__proto__", "a:*b"])
      expect(isPermission(text)).toBe(false);
  });
});
