/** Which methods each path has: what tells a missing path (404) from a wrong method (405). */
export interface RouteTable {
  methodsOf(path: string): readonly string[];
}

export function createRouteTable(routes: readonly { method: string; path: string }[]): RouteTable {
  const patterns = routes.map(({ method, path }) => ({
    method,
    pattern: new RegExp(`^${path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/:[^/]+/g, "[^/]+")}$`),
  }));
  return {
    methodsOf(path) {
      const methods = patterns.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method);
      return [...new Set(methods.includes("GET") ? [...methods, "HEAD"] : methods)].sort();
    },
  };
}
