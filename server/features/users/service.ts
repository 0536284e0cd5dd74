export { createUser, insertPreparedUser, type NewUser, type PreparedUser, prepareUser } from "./create-user.ts";
export { findUserByAny, getUser, listLoginPage, listUserPage, rightsOf } from "./find-users.ts";
export {
  changeUser,
  deactivateUser,
  eraseUser,
  requirePasswordChange,
  type UserChange,
  unlockUser,
} from "./manage-users.ts";
export { tellOldAddress } from "./move-address.ts";
export { parseEmail, parseIdentifier, parseUsername, requireEmail, requireUsername } from "./names.ts";
export { keepPassword, type NewPassword, prepareNewPassword, replacePassword, setPassword } from "./set-password.ts";
export { type GivenRoles, setRoles } from "./set-roles.ts";
export {
  type Actor,
  ADMIN_ROLE,
  assertAdministratorRemains,
  assertMayManage,
  assertRolesExist,
  endLinks,
  explainConflict,
  record,
  recordStatement,
  removeUnconfirmed,
  requireLocked,
  requireUser,
  UNVERIFIED_KEPT_MS,
  type UserDeps,
  type UserView,
  viewOf,
} from "./user.ts";
