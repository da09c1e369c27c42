// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// BN254 (alt_bn128) through the precompiles 5..8. G2 words are [imaginary, real], as the pairing wants them.
library Bn254 {
    uint256 internal constant P = 0x30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd47;
    uint256 internal constant R = 0x30644e72e131a029b85045b68181585d2833e84879b9709143e1f593f0000001;

    struct G1Point {
        uint256 X;
        uint256 Y;
    }

    struct G2Point {
        uint256[2] X;
        uint256[2] Y;
    }

    function add(G1Point memory a, G1Point memory b) internal view returns (G1Point memory) {
        return _point(6, abi.encode(a, b), "ecAdd");
    }

    function mul(G1Point memory a, uint256 k) internal view returns (G1Point memory) {
        return _point(7, abi.encode(a, k), "ecMul");
    }

    function neg(G1Point memory a) internal pure returns (G1Point memory) {
        return G1Point(a.X, a.Y == 0 ? 0 : P - a.Y);
    }

    function id(G1Point memory a) internal pure returns (bytes32) {
        return keccak256(abi.encode(a));
    }

    /// x = m, m+1, ... until x^3 + 3 is a square; y is its power (p+1)/4.
    function hashToG1(bytes32 m) internal view returns (G1Point memory) {
        uint256 x = uint256(m) % P;
        while (true) {
            uint256 rhs = addmod(mulmod(mulmod(x, x, P), x, P), 3, P);
            (bool ok, bytes memory out) =
                address(5).staticcall(abi.encode(uint256(32), uint256(32), uint256(32), rhs, (P + 1) / 4, P));
            require(ok, "modexp");
            uint256 y = abi.decode(out, (uint256));
            if (mulmod(y, y, P) == rhs) return G1Point(x, y);
            x = addmod(x, 1, P);
        }
        revert();
    }

    /// Both at once: sig is pk2's signature of m's point h, and pk1 has the same secret as pk2:
    /// e(sig + g*pk1, -G2) * e(h + g*G1, pk2) == 1 for a challenge g over everything.
    function verify(G1Point memory sig, G1Point memory pk1, G2Point memory pk2, G1Point memory h, bytes32 g_)
        internal
        view
        returns (bool called, bool valid)
    {
        uint256 g = uint256(g_) % R;
        bytes memory input = abi.encode(
            add(sig, mul(pk1, g)),
            // minus the generator of G2
            [
                0x198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2,
                0x1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6ed,
                0x275dc4a288d1afb3cbb1ac09187524c7db36395df7be3b99e673b13a075a65ec,
                0x1d9befcd05a5323e6da4d435f3b617cdb3af83285c2df711ef39c01571827f9d
            ],
            add(h, mul(G1Point(1, 2), g)),
            pk2
        );
        bytes memory out;
        (called, out) = address(8).staticcall{gas: 120_000}(input);
        valid = called && abi.decode(out, (bool));
    }

    function _point(uint160 precompile, bytes memory input, string memory what)
        private
        view
        returns (G1Point memory)
    {
        (bool ok, bytes memory out) = address(precompile).staticcall(input);
        require(ok && out.length == 64, what);
        return abi.decode(out, (G1Point));
    }
}

/// One quorum (number 0), one address: registry coordinator, BLS key, stake and index registry in one.
/// Every value is a history by block number, so that questions about an older block have that block's answer.
contract DevRegistry {
    using Bn254 for Bn254.G1Point;

    struct Entry {
        uint32 from;
        uint224 value;
    }

    event NewPubkeyRegistration(address indexed operator, Bn254.G1Point pubkeyG1, Bn254.G2Point pubkeyG2);
    event OperatorRegistered(address indexed operator, bytes32 indexed operatorId);
    event OperatorDeregistered(address indexed operator, bytes32 indexed operatorId);
    event OperatorSocketUpdate(bytes32 indexed operatorId, string socket);
    event OperatorStakeUpdate(bytes32 indexed operatorId, uint8 quorumNumber, uint96 stake);

    address public immutable owner = msg.sender;
    address public serviceManager;
    bytes32[] internal ids;
    mapping(address => bytes32) public getOperatorId;
    mapping(bytes32 => address) public getOperatorFromId;
    mapping(bytes32 => Bn254.G1Point) internal keys;
    mapping(bytes32 => Entry[]) internal bitmaps;
    mapping(bytes32 => Entry[]) internal stakes;
    Entry[] internal totals;
    Entry[] internal apkHashes; // the first 24 bytes
    Bn254.G1Point internal apk;

    constructor() {
        _push(totals, 0);
        _push(apkHashes, 0);
    }

    modifier onlyOwner() {
        require(msg.sender == owner, "only the owner");
        _;
    }

    function setServiceManager(address manager) external onlyOwner {
        serviceManager = manager;
    }

    // the addresses that readers ask for are all this one
    function blsApkRegistry() external view returns (address) {
        return address(this);
    }

    function stakeRegistry() external view returns (address) {
        return address(this);
    }

    function indexRegistry() external view returns (address) {
        return address(this);
    }

    function quorumCount() external pure returns (uint8) {
        return 1;
    }

    function pubkeyRegistrationMessageHash(address operator) public view returns (Bn254.G1Point memory) {
        return Bn254.hashToG1(keccak256(abi.encode("devnet key registration", block.chainid, address(this), operator)));
    }

    function register(
        address operator,
        Bn254.G1Point calldata pk1,
        Bn254.G2Point calldata pk2,
        Bn254.G1Point calldata proof,
        uint96 stake,
        string calldata socket
    ) external onlyOwner {
        bytes32 id = Bn254.id(pk1);
        require(getOperatorId[operator] == 0 && getOperatorFromId[id] == address(0), "already registered");
        Bn254.G1Point memory h = pubkeyRegistrationMessageHash(operator);
        (, bool valid) = Bn254.verify(proof, pk1, pk2, h, keccak256(abi.encode(proof, pk1, pk2, h)));
        require(valid, "proof of possession");
        getOperatorId[operator] = id;
        getOperatorFromId[id] = operator;
        keys[id] = pk1;
        ids.push(id);
        emit NewPubkeyRegistration(operator, pk1, pk2);
        emit OperatorSocketUpdate(id, socket);
        _join(operator, id, stake);
    }

    function rejoin(address operator, uint96 stake) external onlyOwner {
        _join(operator, getOperatorId[operator], stake);
    }

    function deregister(address operator) external onlyOwner {
        bytes32 id = getOperatorId[operator];
        require(_last(bitmaps[id]) == 1, "not registered");
        _push(bitmaps[id], 0);
        _setStake(id, 0);
        _setApk(apk.add(keys[id].neg()));
        emit OperatorDeregistered(operator, id);
    }

    function setStake(address operator, uint96 stake) external onlyOwner {
        bytes32 id = getOperatorId[operator];
        require(_last(bitmaps[id]) == 1, "not registered");
        _setStake(id, stake);
    }

    function _join(address operator, bytes32 id, uint96 stake) private {
        require(_last(bitmaps[id]) == 0 && id != 0, "registered");
        _push(bitmaps[id], 1);
        _setStake(id, stake);
        _setApk(apk.add(keys[id]));
        emit OperatorRegistered(operator, id);
    }

    function _setStake(bytes32 id, uint96 stake) private {
        _push(totals, _last(totals) - _last(stakes[id]) + stake);
        _push(stakes[id], stake);
        emit OperatorStakeUpdate(id, 0, stake);
    }

    function _setApk(Bn254.G1Point memory next) private {
        apk = next;
        _push(apkHashes, uint192(bytes24(next.id())));
    }

    // ---- reads

    function getApk(uint8) external view returns (Bn254.G1Point memory) {
        return apk;
    }

    function getRegisteredPubkey(address operator) external view returns (Bn254.G1Point memory, bytes32) {
        bytes32 id = getOperatorId[operator];
        require(id != 0, "BLSApkRegistry.getRegisteredPubkey: operator is not registered");
        return (keys[id], id);
    }

    function getOperatorFromPubkeyHash(bytes32 id) external view returns (address) {
        return getOperatorFromId[id];
    }

    function pubkeyHashToOperator(bytes32 id) external view returns (address) {
        return getOperatorFromId[id];
    }

    function getOperatorStatus(address operator) external view returns (uint8) {
        bytes32 id = getOperatorId[operator];
        return id == 0 ? 0 : _last(bitmaps[id]) == 1 ? 1 : 2;
    }

    function getCurrentQuorumBitmap(bytes32 id) external view returns (uint192) {
        return uint192(_last(bitmaps[id]));
    }

    function getCurrentStake(bytes32 id, uint8) external view returns (uint96) {
        return uint96(_last(stakes[id]));
    }

    function getCurrentTotalStake(uint8) external view returns (uint96) {
        return uint96(_last(totals));
    }

    function getOperatorListAtBlockNumber(uint8, uint32 blockNumber) external view returns (bytes32[] memory out) {
        out = new bytes32[](ids.length);
        uint256 n;
        for (uint256 i; i < ids.length; ++i) {
            Entry[] storage h = bitmaps[ids[i]];
            if (h[0].from <= blockNumber && h[_index(h, blockNumber)].value == 1) out[n++] = ids[i];
        }
        assembly {
            mstore(out, n)
        }
    }

    function getStakeAtBlockNumber(bytes32 id, uint8, uint32 blockNumber) external view returns (uint96) {
        return uint96(stakes[id][_index(stakes[id], blockNumber)].value);
    }

    function getStakeAtBlockNumberAndIndex(uint8, uint32 blockNumber, bytes32 id, uint256 i)
        external
        view
        returns (uint96)
    {
        return uint96(_check(stakes[id], blockNumber, i));
    }

    function getTotalStakeAtBlockNumberFromIndex(uint8, uint32 blockNumber, uint256 i)
        external
        view
        returns (uint96)
    {
        return uint96(_check(totals, blockNumber, i));
    }

    function getStakeUpdateIndexAtBlockNumber(bytes32 id, uint8, uint32 blockNumber) external view returns (uint32) {
        return _index(stakes[id], blockNumber);
    }

    function getTotalStakeIndicesAtBlockNumber(uint32 blockNumber, bytes calldata quorums)
        external
        view
        returns (uint32[] memory)
    {
        return _alone(quorums, _index(totals, blockNumber));
    }

    function getQuorumBitmapIndicesAtBlockNumber(uint32 blockNumber, bytes32[] calldata who)
        external
        view
        returns (uint32[] memory out)
    {
        out = new uint32[](who.length);
        for (uint256 i; i < who.length; ++i) {
            out[i] = _index(bitmaps[who[i]], blockNumber);
        }
    }

    function getQuorumBitmapAtBlockNumberByIndex(bytes32 id, uint32 blockNumber, uint256 i)
        external
        view
        returns (uint192)
    {
        return uint192(_check(bitmaps[id], blockNumber, i));
    }

    function getApkIndicesAtBlockNumber(bytes calldata quorums, uint256 blockNumber)
        external
        view
        returns (uint32[] memory)
    {
        return _alone(quorums, _index(apkHashes, uint32(blockNumber)));
    }

    function getApkHashAtBlockNumberAndIndex(uint8, uint32 blockNumber, uint256 i) external view returns (bytes24) {
        return bytes24(uint192(_check(apkHashes, blockNumber, i)));
    }

    function _alone(bytes calldata quorums, uint32 value) private pure returns (uint32[] memory out) {
        require(quorums.length == 1 && quorums[0] == 0, "quorum 0 only");
        out = new uint32[](1);
        out[0] = value;
    }

    // ---- histories

    function _push(Entry[] storage h, uint256 value) private {
        if (h.length > 0 && h[h.length - 1].from == block.number) h[h.length - 1].value = uint224(value);
        else h.push(Entry(uint32(block.number), uint224(value)));
    }

    function _last(Entry[] storage h) private view returns (uint256) {
        return h.length == 0 ? 0 : h[h.length - 1].value;
    }

    function _index(Entry[] storage h, uint32 blockNumber) private view returns (uint32) {
        for (uint256 i = h.length; i > 0; --i) {
            if (h[i - 1].from <= blockNumber) return uint32(i - 1);
        }
        revert("no entry at that block");
    }

    function _check(Entry[] storage h, uint32 blockNumber, uint256 i) private view returns (uint256) {
        require(h[i].from <= blockNumber, "index too recent");
        require(i + 1 == h.length || blockNumber < h[i + 1].from, "index not the latest at that block");
        return h[i].value;
    }
}

/// The read side that aggregators call; the same names, arguments and results as EigenLayer's.
contract DevOperatorStateRetriever {
    struct Operator {
        address operator;
        bytes32 operatorId;
        uint96 stake;
    }

    struct CheckSignaturesIndices {
        uint32[] nonSignerQuorumBitmapIndices;
        uint32[] quorumApkIndices;
        uint32[] totalStakeIndices;
        uint32[][] nonSignerStakeIndices;
    }

    function getOperatorState(DevRegistry registry, bytes memory quorumNumbers, uint32 blockNumber)
        public
        view
        returns (Operator[][] memory out)
    {
        require(quorumNumbers.length == 1 && quorumNumbers[0] == 0, "quorum 0 only");
        bytes32[] memory who = registry.getOperatorListAtBlockNumber(0, blockNumber);
        out = new Operator[][](1);
        out[0] = new Operator[](who.length);
        for (uint256 i; i < who.length; ++i) {
            out[0][i] = Operator(registry.getOperatorFromId(who[i]), who[i], registry.getStakeAtBlockNumber(who[i], 0, blockNumber));
        }
    }

    function getCheckSignaturesIndices(
        DevRegistry registry,
        uint32 blockNumber,
        bytes calldata quorumNumbers,
        bytes32[] calldata nonSigners
    ) external view returns (CheckSignaturesIndices memory out) {
        out.nonSignerQuorumBitmapIndices = registry.getQuorumBitmapIndicesAtBlockNumber(blockNumber, nonSigners);
        out.quorumApkIndices = registry.getApkIndicesAtBlockNumber(quorumNumbers, blockNumber);
        out.totalStakeIndices = registry.getTotalStakeIndicesAtBlockNumber(blockNumber, quorumNumbers);
        out.nonSignerStakeIndices = new uint32[][](1);
        out.nonSignerStakeIndices[0] = new uint32[](nonSigners.length);
        for (uint256 i; i < nonSigners.length; ++i) {
            out.nonSignerStakeIndices[0][i] =
                registry.getStakeUpdateIndexAtBlockNumber(nonSigners[i], 0, blockNumber);
        }
    }
}

/// Takes batches and their answers, with the events, reverts and fee rules of Aligned's.
/// Two rules differ between Aligned's releases, so they are switches here: `pause`, and who pays what
/// an answer costs beyond the batch's limit (`setFeesCapped`).
contract DevServiceManager {
    using Bn254 for Bn254.G1Point;

    struct BatchState {
        uint32 taskCreatedBlock;
        bool responded;
        uint256 respondToTaskFeeLimit;
    }

    struct QuorumStakeTotals {
        uint96[] signedStakeForQuorum;
        uint96[] totalStakeForQuorum;
    }

    struct NonSignerStakesAndSignature {
        uint32[] nonSignerQuorumBitmapIndices;
        Bn254.G1Point[] nonSignerPubkeys;
        Bn254.G1Point[] quorumApks;
        Bn254.G2Point apkG2;
        Bn254.G1Point sigma;
        uint32[] quorumApkIndices;
        uint32[] totalStakeIndices;
        uint32[][] nonSignerStakeIndices;
    }

    event NewBatchV3(
        bytes32 indexed batchMerkleRoot,
        address senderAddress,
        uint32 taskCreatedBlock,
        string batchDataPointer,
        uint256 respondToTaskFeeLimit
    );
    event BatchVerified(bytes32 indexed batchMerkleRoot, address senderAddress);
    event BatcherBalanceUpdated(address indexed batcher, uint256 newBalance);

    error BatchAlreadySubmitted(bytes32 batchIdentifierHash);
    error BatchDoesNotExist(bytes32 batchIdentifierHash);
    error BatchAlreadyResponded(bytes32 batchIdentifierHash);
    error InsufficientFunds(address batcher, uint256 required, uint256 available);
    error InvalidQuorumThreshold(uint256 signedStake, uint256 requiredStake);
    error SenderIsNotAggregator(address sender, address alignedAggregator);
    error InvalidDepositAmount(uint256 amount);
    error ExceededMaxRespondFee(uint256 respondToTaskFeeLimit, uint256 txCost);

    DevRegistry public immutable registryCoordinator;
    address public immutable owner = msg.sender;
    address public alignedAggregator;
    uint256 public disabledVerifiers;
    /// One bit a function: 0 createNewTask, 1 respondToTaskV2.
    uint256 public paused;
    /// False: an answer dearer than the batch's limit reverts. True: the batcher pays up to the limit,
    /// the aggregator bears the rest.
    bool public feesCapped;
    mapping(bytes32 => BatchState) public batchesState;
    mapping(address => uint256) public batchersBalances;

    constructor(DevRegistry registry, address aggregator) {
        registryCoordinator = registry;
        alignedAggregator = aggregator;
    }

    modifier onlyOwner() {
        require(msg.sender == owner, "Ownable: caller is not the owner");
        _;
    }

    modifier whenNotPaused(uint8 bit) {
        require((paused >> bit) & 1 == 0, "Pausable: index is paused");
        _;
    }

    function setAggregator(address a) external onlyOwner {
        alignedAggregator = a;
    }

    function pause(uint256 bits) external onlyOwner {
        paused = bits;
    }

    function unpause(uint256 bits) external onlyOwner {
        paused = bits;
    }

    function setFeesCapped(bool capped) external onlyOwner {
        feesCapped = capped;
    }

    function blsApkRegistry() external view returns (address) {
        return address(registryCoordinator);
    }

    function stakeRegistry() external view returns (address) {
        return address(registryCoordinator);
    }

    function staleStakesForbidden() external pure returns (bool) {
        return false;
    }

    function balanceOf(address account) external view returns (uint256) {
        return batchersBalances[account];
    }

    function depositToBatcher(address account) external payable {
        if (msg.value == 0) revert InvalidDepositAmount(0);
        _credit(account, int256(msg.value));
    }

    function withdraw(uint256 amount) external {
        if (batchersBalances[msg.sender] < amount) {
            revert InsufficientFunds(msg.sender, amount, batchersBalances[msg.sender]);
        }
        _credit(msg.sender, -int256(amount));
        payable(msg.sender).transfer(amount);
    }

    function createNewTask(bytes32 root, string calldata pointer, uint256 feeLimit)
        external
        payable
        whenNotPaused(0)
    {
        bytes32 id = keccak256(abi.encodePacked(root, msg.sender));
        if (batchesState[id].taskCreatedBlock != 0) revert BatchAlreadySubmitted(id);
        if (msg.value > 0) _credit(msg.sender, int256(msg.value));
        if (batchersBalances[msg.sender] < feeLimit) {
            revert InsufficientFunds(msg.sender, feeLimit, batchersBalances[msg.sender]);
        }
        batchesState[id] = BatchState(uint32(block.number), false, feeLimit);
        emit NewBatchV3(root, msg.sender, uint32(block.number), pointer, feeLimit);
    }

    function respondToTaskV2(bytes32 root, address sender, NonSignerStakesAndSignature calldata p)
        external
    {
        uint256 gasBefore = gasleft();
        if (msg.sender != alignedAggregator) revert SenderIsNotAggregator(msg.sender, alignedAggregator);
        require((paused >> 1) & 1 == 0, "Pausable: index is paused");
        bytes32 id = keccak256(abi.encodePacked(root, sender));
        BatchState storage b = batchesState[id];
        if (b.taskCreatedBlock == 0) revert BatchDoesNotExist(id);
        if (b.responded) revert BatchAlreadyResponded(id);
        b.responded = true;
        uint256 limit = b.respondToTaskFeeLimit;
        if (batchersBalances[sender] < limit) revert InsufficientFunds(sender, limit, batchersBalances[sender]);

        (uint256 signed, uint256 total,) = _check(id, b.taskCreatedBlock, p);
        if (signed * 100 < total * 67) revert InvalidQuorumThreshold(signed * 100, total * 67);
        emit BatchVerified(root, sender);

        uint256 cost = (gasBefore - gasleft() + 70_000) * tx.gasprice;
        if (cost > limit) {
            if (!feesCapped) revert ExceededMaxRespondFee(limit, cost);
            cost = limit;
        }
        _credit(sender, -int256(cost));
        payable(alignedAggregator).transfer(cost);
    }

    function checkSignatures(bytes32 message, uint32 blockNumber, NonSignerStakesAndSignature calldata p)
        external
        view
        returns (QuorumStakeTotals memory totals, bytes32 recordHash)
    {
        (uint256 signed, uint256 total, bytes32[] memory nonSigners) = _check(message, blockNumber, p);
        totals.signedStakeForQuorum = new uint96[](1);
        totals.totalStakeForQuorum = new uint96[](1);
        totals.signedStakeForQuorum[0] = uint96(signed);
        totals.totalStakeForQuorum[0] = uint96(total);
        recordHash = keccak256(abi.encodePacked(blockNumber, nonSigners));
    }

    function trySignatureAndApkVerification(
        bytes32 message,
        Bn254.G1Point memory apk,
        Bn254.G2Point memory apkG2,
        Bn254.G1Point memory sigma
    ) public view returns (bool pairingSuccessful, bool signatureIsValid) {
        bytes32 g = keccak256(abi.encode(message, apk, apkG2, sigma));
        return Bn254.verify(sigma, apk, apkG2, Bn254.hashToG1(message), g);
    }

    function _check(bytes32 message, uint32 blockNumber, NonSignerStakesAndSignature calldata p)
        private
        view
        returns (uint256 signed, uint256 total, bytes32[] memory nonSigners)
    {
        require(
            p.quorumApks.length == 1 && p.quorumApkIndices.length == 1 && p.totalStakeIndices.length == 1
                && p.nonSignerStakeIndices.length == 1,
            "BLSSignatureChecker.checkSignatures: input quorum length mismatch"
        );
        require(
            p.nonSignerPubkeys.length == p.nonSignerQuorumBitmapIndices.length,
            "BLSSignatureChecker.checkSignatures: input nonsigner length mismatch"
        );
        require(blockNumber < block.number, "BLSSignatureChecker.checkSignatures: invalid reference block");
        Bn254.G1Point memory signers;
        (signers, signed, total, nonSigners) = _signers(blockNumber, p);
        (bool called, bool valid) = trySignatureAndApkVerification(message, signers, p.apkG2, p.sigma);
        require(called, "BLSSignatureChecker.checkSignatures: pairing precompile call failed");
        require(valid, "BLSSignatureChecker.checkSignatures: signature is invalid");
    }

    /// The quorum's key and stake at that block, less those of the non-signers.
    function _signers(uint32 blockNumber, NonSignerStakesAndSignature calldata p)
        private
        view
        returns (Bn254.G1Point memory key, uint256 signed, uint256 total, bytes32[] memory nonSigners)
    {
        DevRegistry reg = registryCoordinator;
        key = p.quorumApks[0];
        require(
            bytes24(Bn254.id(key)) == reg.getApkHashAtBlockNumberAndIndex(0, blockNumber, p.quorumApkIndices[0]),
            "BLSSignatureChecker.checkSignatures: quorumApk hash in storage does not match provided quorum apk"
        );
        signed = total = reg.getTotalStakeAtBlockNumberFromIndex(0, blockNumber, p.totalStakeIndices[0]);
        nonSigners = new bytes32[](p.nonSignerPubkeys.length);
        uint256 used;
        for (uint256 i; i < p.nonSignerPubkeys.length; ++i) {
            Bn254.G1Point memory pk = p.nonSignerPubkeys[i];
            bytes32 who = Bn254.id(pk);
            require(i == 0 || who > nonSigners[i - 1], "BLSSignatureChecker.checkSignatures: nonSignerPubkeys not sorted");
            nonSigners[i] = who;
            if (reg.getQuorumBitmapAtBlockNumberByIndex(who, blockNumber, p.nonSignerQuorumBitmapIndices[i]) & 1 == 1) {
                key = key.add(pk.neg());
                signed -= reg.getStakeAtBlockNumberAndIndex(0, blockNumber, who, p.nonSignerStakeIndices[0][used++]);
            }
        }
    }

    function _credit(address who, int256 amount) private {
        uint256 now_ = uint256(int256(batchersBalances[who]) + amount);
        batchersBalances[who] = now_;
        emit BatcherBalanceUpdated(who, now_);
    }

    receive() external payable {
        _credit(msg.sender, int256(msg.value));
    }
}
