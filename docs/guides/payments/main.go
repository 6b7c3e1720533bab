// Payments answers everybody whom it can verify, and asks its peer, if it has one.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	source, err := workloadapi.NewX509Source(context.Background()) // SPIFFE_ENDPOINT_SOCKET says where
	if err != nil {
		log.Fatal(err)
	}
	if peer := os.Getenv("PAYMENTS_ADDRESS"); peer != "" {
		go ask(source, "https://"+peer, spiffeid.RequireFromString(os.Getenv("PAYMENTS_ID")))
	}
	server := http.Server{Addr: ":8443", TLSConfig: tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny())}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := x509svid.IDFromCert(r.TLS.PeerCertificates[0])
		fmt.Fprintf(w, "paid by %s", id)
	})
	log.Fatal(server.ListenAndServeTLS("", ""))
}

func ask(source *workloadapi.X509Source, url string, peer spiffeid.ID) {
	client := http.Client{Transport: &http.Transport{TLSClientConfig: tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(peer))}}
	for range time.Tick(time.Second) {
		response, err := client.Get(url)
		if err != nil {
			log.Print(err)
			continue
		}
		answer, err := io.ReadAll(response.Body)
		log.Print(string(answer), err)
	}
}
