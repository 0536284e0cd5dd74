export const htmlReport = () => "";
