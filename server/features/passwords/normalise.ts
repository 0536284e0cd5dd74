/** A password of more bytes than this is refused before anything is computed. */
export const MAX_PASSWORD_BYTES = 1024;

/**
 * Passwords are compared in Unicode's canonical form (NFC), so that a letter typed as one character or as two is the
 * same; nothing else about them is changed (NIST SP 800-63B, section 3.1.1.2).
 */
export const normalise = (password: string): string => password.normalize("NFC");
