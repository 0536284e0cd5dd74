import type { Draft } from "../../server/features/moving/service.ts";
import type { FirebaseParameters } from "../../server/features/passwords/service.ts";
import type { Fields } from "./values.ts";

/** An entry that is no person who logs in, and why. */
export interface LeftOut {
  readonly leftOut: string;
}

export interface SourceOptions {
  readonly firebase?: FirebaseParameters;
}

/** How an export of one product is read. */
export interface Source {
  /** Where the users are in a document that is one object; without it such a document is one user on each line. */
  readonly listIn?: string;
  /** Where they are in a document that is a list. */
  readonly listInArray?: string;
  /** Whether it may be a CSV too, or is one always. */
  readonly csv?: "always" | "maybe";
  /** Whether role names are those of primer. */
  readonly ownRoles?: true;
  /** Makes what turns one entry into a draft; it may remember entries that it has seen. @throws RecordFault */
  reader(options: SourceOptions): (entry: Fields) => Draft | LeftOut;
}

/** A draft of whatever was there to read. */
export const draft = (fields: { readonly [Name in keyof Draft]: Draft[Name] | undefined }): Draft => fields as Draft;
