// Prints the compiled contracts as JSON: node compile.mjs <folder that has node_modules/solc>
import fs from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';

const solc = createRequire(path.resolve(process.argv[2]) + '/')('solc');
const input = {
  language: 'Solidity',
  sources: {'Devnet.sol': {content: fs.readFileSync(new URL('Devnet.sol', import.meta.url), 'utf8')}},
  settings: {
    evmVersion: 'cancun',
    optimizer: {enabled: true, runs: 200},
    metadata: {bytecodeHash: 'none'}, // the same source gives the same bytes
    outputSelection: {'*': {'*': ['abi', 'evm.bytecode.object', 'evm.methodIdentifiers']}},
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
const TRANSFER_DEPRECATED = '9207'; // used on purpose, as the real contract does
const problems = (output.errors ?? []).filter(problem => problem.errorCode !== TRANSFER_DEPRECATED);
for (const problem of problems) console.error(problem.errorCode, problem.formattedMessage);
if (problems.length) process.exit(1); // warnings too: there are none to get used to
const contracts = {};
for (const [name, contract] of Object.entries(output.contracts['Devnet.sol'])) {
  if (name === 'Bn254') continue;
  contracts[name] = {
    abi: contract.abi,
    selectors: contract.evm.methodIdentifiers,
    bytecode: '0x' + contract.evm.bytecode.object,
  };
}
process.stdout.write(JSON.stringify({solc: solc.version(), contracts}, null, 1) + '\n');
