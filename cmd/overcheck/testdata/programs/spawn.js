// Starts a process for each line of standard input and answers with an error
// number: the victim's protocol.
const { spawnSync } = require("child_process");
const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", () => {
  const { error } = spawnSync("/bin/true");
  console.log(error ? -error.errno : 0);
});
console.log("ready");
