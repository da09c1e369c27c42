// Command operator calls an aggregator as an Aligned operator does: Go's own net/rpc and gob, the
// key and signature types of eigensdk-go. It prints one JSON object per step.
package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/rpc"
	"os"
	"sync"

	"github.com/Layr-Labs/eigensdk-go/crypto/bls"
	"github.com/Layr-Labs/eigensdk-go/types"
	"github.com/ethereum/go-ethereum/crypto"
)

const (
	respond = "Aggregator.ProcessOperatorSignedTaskResponseV2"
	running = "Aggregator.ServerRunning"
)

// SignedTaskResponse has the name and the fields of aligned_layer's core/types, so that gob
// describes it alike.
type SignedTaskResponse struct {
	BatchMerkleRoot     [32]byte
	SenderAddress       [20]byte
	BatchIdentifierHash [32]byte
	BlsSignature        bls.Signature
	OperatorId          types.OperatorId
}

// Step is one line of output.
type Step struct {
	Step       string `json:"step"`
	Batch      int    `json:"batch"`
	Value      int64  `json:"value"`
	Error      string `json:"error"`
	Shutdown   bool   `json:"shutdown"`
	BatchID    string `json:"batch_id"`
	OperatorID string `json:"operator_id"`
	Signature  string `json:"signature"`
}

type operator struct {
	address string
	keys    *bls.KeyPair
	client  *rpc.Client
	output  sync.Mutex
}

func (o *operator) dial() {
	client, err := rpc.DialHTTP("tcp", o.address)
	if err != nil {
		log.Fatalf("dial: %v", err)
	}
	o.client = client
}

func (o *operator) print(step Step) {
	o.output.Lock()
	defer o.output.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(step); err != nil {
		log.Fatalf("print: %v", err)
	}
}

// sign returns the response to the batch with this number: its root ends with it.
func (o *operator) sign(batch int) *SignedTaskResponse {
	response := &SignedTaskResponse{OperatorId: types.OperatorIdFromKeyPair(o.keys)}
	response.BatchMerkleRoot[30] = byte(batch >> 8)
	response.BatchMerkleRoot[31] = byte(batch)
	for i := range response.SenderAddress {
		response.SenderAddress[i] = byte(200 + i)
	}
	hash := crypto.Keccak256(response.BatchMerkleRoot[:], response.SenderAddress[:])
	copy(response.BatchIdentifierHash[:], hash)
	response.BlsSignature = *o.keys.SignMessage(response.BatchIdentifierHash)
	return response
}

func (o *operator) send(step string, batch int, response *SignedTaskResponse) {
	var reply uint8
	err := o.client.Call(respond, response, &reply)
	line := Step{
		Step:       step,
		Batch:      batch,
		Value:      int64(reply),
		Shutdown:   errors.Is(err, rpc.ErrShutdown),
		BatchID:    hex.EncodeToString(response.BatchIdentifierHash[:]),
		OperatorID: hex.EncodeToString(response.OperatorId[:]),
	}
	if point := response.BlsSignature.G1Point; point != nil && point.G1Affine != nil {
		line.Signature = hex.EncodeToString(point.Serialize())
	}
	if err != nil {
		line.Error = err.Error()
	}
	o.print(line)
}

func (o *operator) probe(step string) {
	var reply int64
	if err := o.client.Call(running, &struct{}{}, &reply); err != nil {
		o.print(Step{Step: step, Error: err.Error()})
		return
	}
	o.print(Step{Step: step, Value: reply})
}

func main() {
	address := flag.String("address", "", "host:port of the aggregator")
	key := flag.String("key", "", "secret key, decimal")
	batches := flag.Int("batches", 50, "how many batches to answer at once")
	hangUp := flag.Int("hang-up", 0, "number of the batch on which the aggregator hangs up once")
	flag.Parse()
	log.SetFlags(0)

	keys, err := bls.NewKeyPairFromString(*key)
	if err != nil {
		log.Fatalf("key: %v", err)
	}
	o := &operator{address: *address, keys: keys}
	o.dial()
	o.probe("running")

	var calls sync.WaitGroup
	for batch := range *batches {
		calls.Add(1)
		go func() {
			defer calls.Done()
			o.send("at once", batch, o.sign(batch))
		}()
	}
	calls.Wait()

	for batch := range *batches {
		o.send("one by one", batch, o.sign(batch))
	}

	var reply uint8
	err = o.client.Call("Aggregator.ProcessOperatorSignedTaskResponse", o.sign(0), &reply)
	o.print(Step{Step: "unknown method", Error: err.Error()})
	err = o.client.Call(respond, &types.OperatorInfo{Socket: "elsewhere"}, &reply)
	o.print(Step{Step: "another type", Error: err.Error()})

	outer := o.sign(1)
	outer.BlsSignature.G1Point = nil
	o.send("nil outside", 1, outer)
	inner := o.sign(1)
	inner.BlsSignature.G1Point = &bls.G1Point{}
	o.send("nil inside", 1, inner)
	wrong := o.sign(1)
	wrong.BatchMerkleRoot[0] = 1
	o.send("wrong hash", 1, wrong)
	o.send("after errors", 2, o.sign(2))

	o.send("hung up", *hangUp, o.sign(*hangUp))
	o.send("shut down", *hangUp, o.sign(*hangUp))
	o.dial()
	o.send("dialled again", *hangUp, o.sign(*hangUp))

	if err := o.client.Close(); err != nil {
		log.Fatalf("close: %v", err)
	}
	o.dial()
	o.send("closed and dialled", 3, o.sign(3))
	o.probe("running still")
}
