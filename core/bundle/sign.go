package bundle

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// signatureLine begins what is signed, so that no signature for another purpose
// is one of a manifest, and the file that has the signature.
const signatureLine = "wafer-bundle-signature 1\n"

// signatureSize is octets of the file.
const signatureSize = len(signatureLine) + len("key \nsignature \n") + 2*ed25519.PublicKeySize + 2*ed25519.SignatureSize

// sign returns the file with the signature of a manifest.
func sign(key ed25519.PrivateKey, manifest []byte) []byte {
	return encodeSignature(key.Public().(ed25519.PublicKey), ed25519.Sign(key, slices.Concat([]byte(signatureLine), manifest)))
}

func encodeSignature(key ed25519.PublicKey, signature []byte) []byte {
	return fmt.Appendf(nil, "%skey %x\nsignature %x\n", signatureLine, []byte(key), signature)
}

// verify returns the key that has signed the manifest.
func verify(b, manifest []byte, signer string) (ed25519.PublicKey, error) {
	bad := func(what string) (ed25519.PublicKey, error) {
		return nil, &Error{ErrTampered, signatureName, what}
	}
	text, ok := strings.CutPrefix(string(b), signatureLine)
	lines := strings.Split(text, "\n")
	if !ok || len(lines) != 3 {
		return bad("not a signature")
	}
	key, err := hex.DecodeString(strings.TrimPrefix(lines[0], "key "))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return bad("not a key")
	}
	signature, err := hex.DecodeString(strings.TrimPrefix(lines[1], "signature "))
	if err != nil || len(signature) != ed25519.SignatureSize || string(encodeSignature(key, signature)) != string(b) {
		return bad("not as a signature is written")
	}
	switch {
	case Fingerprint(key) != signer:
		return bad("its key is not the one that the manifest names")
	case !ed25519.Verify(key, slices.Concat([]byte(signatureLine), manifest), signature):
		return bad("the signature is not of this manifest")
	}
	return key, nil
}
