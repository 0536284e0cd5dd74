import type { Source } from "../source.ts";
import { auth0 } from "./auth0.ts";
import { authentik, django } from "./django.ts";
import { firebase } from "./firebase.ts";
import { keycloak } from "./keycloak.ts";
import { kratos } from "./kratos.ts";
import { csv, ndjson } from "./own.ts";
import { supabase } from "./supabase.ts";

/** Every format that `primer users import` reads. */
export const SOURCES: Readonly<Record<string, Source>> = {
  primer: ndjson,
  keycloak,
  auth0,
  firebase,
  supabase,
  kratos,
  authentik,
  django,
  csv,
  ndjson,
};
