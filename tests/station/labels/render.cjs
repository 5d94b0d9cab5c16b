// Renders ZPL by an implementation that others wrote. stdin: [{zpl, width, height, dots}], sizes in
// mm and dots per mm. stdout: PNGs in base64, in the same order.
const { ready } = require(process.argv[2]);
const jobs = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
ready.then(async ({ api }) => {
  const pictures = [];
  for (const { zpl, width, height, dots } of jobs)
    pictures.push(await api.zplToBase64Async(zpl, width, height, dots));
  process.stdout.write(JSON.stringify(pictures), () => process.exit(0));
});
