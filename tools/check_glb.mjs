// Checks GLB files with the validator of Khronos and prints its messages. Fails on errors and warnings.
//
//     npm install gltf-validator
//     NODE_PATH=node_modules node tools/check_glb.mjs head.glb

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const validator = createRequire(import.meta.url)("gltf-validator"); // require() obeys NODE_PATH, import does not
let problems = 0;
for (const path of process.argv.slice(2)) {
  const { issues } = await validator.validateBytes(new Uint8Array(readFileSync(path)));
  console.log(`${path}: ${issues.numErrors} errors, ${issues.numWarnings} warnings, ${issues.numInfos} infos`);
  for (const { code, pointer, message } of issues.messages) console.log(`  ${code} ${pointer}: ${message}`);
  problems += issues.numErrors + issues.numWarnings;
}
process.exitCode = problems ? 1 : 0;
