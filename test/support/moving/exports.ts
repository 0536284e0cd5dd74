/**
 * An export of each product that users come from, built from the form that the product publishes, and what has to come of
 * it. The password of everybody in them is {@link EXPORT_PASSWORD}, but where the vector is a published one.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readHashConfig } from "../../../cli/moving/hash-config.ts";
import type { SourceOptions } from "../../../cli/moving/source.ts";

export const EXPORT_PASSWORD = "correct horse battery staple";
/** Of the account in the README of https://github.com/firebase/scrypt. */
const FIREBASE_PASSWORD = "user1password";

const at = (name: string) => join(import.meta.dir, name);
export const FIREBASE_CONFIG = at("firebase-hash-config.txt");
export const exportText = (name: string): string => readFileSync(at(name), "utf8");

export interface ProductExport {
  readonly format: string;
  /** Where the form is published. */
  readonly source: string;
  readonly path: string;
  readonly sourceOptions?: SourceOptions;
  /** What the report has to say. */
  readonly report: object;
  readonly users: readonly {
    readonly username: string;
    readonly status: "active" | "disabled";
    readonly email_verified?: boolean;
    /** Undefined for who has none. */
    readonly password?: string;
    readonly roles?: readonly string[];
    readonly created?: string;
    readonly passwordChangeRequired?: true;
  }[];
}

const password = EXPORT_PASSWORD;
const [active, disabled] = ["active", "disabled"] as const;

const KEYCLOAK_USERS: ProductExport["users"] = [
  {
    username: "kim",
    status: active,
    email_verified: true,
    password,
    roles: ["editor", "user"],
    created: "2020-01-01T00:00:00.001Z",
  },
  { username: "kai", status: active, password },
  { username: "kat", status: active, email_verified: false, password },
  { username: "ken", status: disabled, password },
  { username: "kay", status: active, password, passwordChangeRequired: true },
];
const KEYCLOAK_REPORT = {
  read: 7,
  imported: 5,
  left_out_by: { "service account": 1 },
  rejected_by: { password_hash_refused: 1 },
  by_hash: { argon2: 1, pbkdf2: 4 },
  roles_ignored: { "/staff": 5 },
};

export const EXPORTS: readonly ProductExport[] = [
  {
    format: "keycloak",
    source:
      "Keycloak 26, kc.sh export (https://www.keycloak.org/server/importExport), RealmRepresentation and UserRepresentation; kay is as version 7 and earlier wrote credentials. Hashes made with Python's hashlib and argon2",
    path: at("keycloak-realm.json"),
    report: KEYCLOAK_REPORT,
    users: KEYCLOAK_USERS,
  },
  {
    format: "keycloak",
    source: "The same as a folder: kc.sh export --dir --users different_files",
    path: at("keycloak-folder"),
    report: KEYCLOAK_REPORT,
    users: KEYCLOAK_USERS,
  },
  {
    format: "auth0",
    source:
      "Auth0, export with password hashes by its support, and the schema of bulk imports (https://auth0.com/docs/manage-users/user-migration)",
    path: at("auth0.ndjson"),
    report: { read: 4, imported: 3, rejected_by: { password_hash_refused: 1 }, names_made: 2, without_password: 1 },
    users: [
      { username: "ann", status: active, email_verified: true, password },
      {
        username: "abe",
        status: disabled,
        email_verified: false,
        password,
        roles: ["editor", "user"],
        created: "2021-03-05T16:34:33.000Z",
      },
      { username: "amy", status: active },
    ],
  },
  {
    format: "firebase",
    source:
      "Firebase, auth:export --format=json (https://firebase.google.com/docs/cli/auth); fay's hash is the vector of https://github.com/firebase/scrypt, flo's what is exported without the right to see hashes",
    path: at("firebase.json"),
    sourceOptions: { firebase: readHashConfig(FIREBASE_CONFIG) },
    report: { read: 4, imported: 2, rejected_by: { password_hash_refused: 1, email_missing: 1 } },
    users: [
      {
        username: "fay",
        status: active,
        email_verified: true,
        password: FIREBASE_PASSWORD,
        roles: ["editor", "user"],
        created: "2020-01-01T00:00:00.000Z",
      },
      { username: "fin", status: disabled, email_verified: false },
    ],
  },
  {
    format: "supabase",
    source: "Supabase Auth, the table auth.users as CSV (https://supabase.com/docs/guides/auth/managing-user-data)",
    path: at("supabase.csv"),
    report: { read: 4, imported: 2, left_out_by: { deleted: 1, anonymous: 1 }, by_hash: { bcrypt: 2 } },
    users: [
      {
        username: "sue",
        status: active,
        email_verified: true,
        password,
        roles: ["editor", "user"],
        created: "2022-02-02T02:02:02.123Z",
      },
      { username: "sam", status: disabled, email_verified: false, password },
    ],
  },
  {
    format: "kratos",
    source:
      "Ory Kratos, GET /admin/identities?include_credential=password (https://www.ory.sh/docs/kratos/reference/api) and its forms of hashes (https://www.ory.sh/docs/kratos/manage-identities/import-user-accounts-identities)",
    path: at("kratos.json"),
    report: { read: 3, imported: 3, by_hash: { argon2: 1, bcrypt: 1, "scrypt (Firebase)": 1 } },
    users: [
      {
        username: "ora",
        status: active,
        email_verified: true,
        password,
        roles: ["user"],
        created: "2023-05-05T05:05:05.123Z",
      },
      { username: "ole", status: disabled, email_verified: false, password },
      { username: "ove", status: active, password: FIREBASE_PASSWORD, roles: ["editor", "user"] },
    ],
  },
  {
    format: "django",
    source:
      "Django 4.2, manage.py dumpdata auth (https://docs.djangoproject.com/en/4.2/ref/django-admin/#dumpdata); hashes made with Django and passlib",
    path: at("django.json"),
    report: {
      read: 6,
      imported: 2,
      rejected_by: { username_invalid: 1, password_hash_refused: 1 },
      left_out_by: { "no user": 2 },
    },
    users: [
      { username: "dan", status: active, password, roles: ["editor", "user"], created: "2019-01-01T10:00:01.123Z" },
      { username: "dov", status: disabled },
    ],
  },
  {
    format: "authentik",
    source: "authentik 2024, ak dumpdata authentik_core (a Django application: https://docs.goauthentik.io)",
    path: at("authentik.json"),
    report: { read: 5, imported: 2, left_out_by: { "service account": 2, "no user": 1 } },
    users: [
      { username: "tom", status: active, password, roles: ["editor", "user"] },
      { username: "tim", status: disabled, password },
    ],
  },
  {
    format: "csv",
    source: "Made by hand as the README says; hashes made with passlib",
    path: at("hand-made.csv"),
    report: { read: 3, imported: 3, by_hash: { "sha-crypt": 1, phpass: 1, "salted sha": 1 } },
    users: [
      {
        username: "cleo",
        status: active,
        email_verified: true,
        password,
        roles: ["user"],
        created: "2020-02-02T00:00:00.000Z",
      },
      { username: "cora", status: active, email_verified: false, password },
      { username: "cyd", status: disabled, password },
    ],
  },
  {
    format: "ndjson",
    source: "Made by hand as the README says; hashes made with passlib",
    path: at("hand-made.ndjson"),
    report: { read: 3, imported: 3, names_made: 1, by_hash: { scrypt: 1, "md5-crypt": 1 } },
    users: [
      { username: "ned", status: active, email_verified: true, password, roles: ["user"] },
      { username: "nia", status: active, email_verified: false, password, roles: ["user"] },
      { username: "no", status: active },
    ],
  },
];
