package local

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/url"
	"testing"
)

// The certificate of a node's API is for the node's name, and is accepted at its URL.
func TestNetworkAPI(t *testing.T) {
	at, err := url.Parse(networkAPI("spread", "b"))
	if err != nil {
		t.Fatal(err)
	}
	if at.String() != "https://spread-b-control-plane.:6443" {
		t.Errorf("the API is at %s", at)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{NodeName("spread", "b")}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := certificate.VerifyHostname(at.Hostname()); err != nil {
		t.Error(err)
	}
}
