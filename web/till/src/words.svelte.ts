/** Every word that the till shows, in English and Indonesian; the choice is kept in the browser. */

const en = {
  sell: "Sell", receipts: "Receipts", attention: "Attention", search: "Search or scan", searchHint: "Name, article number or barcode",
  all: "All", cart: "Sale", emptyCart: "Nothing here yet", emptyCartHint: "Tap a product, or scan it.", clear: "Clear", total: "Total", pay: "Pay",
  payTitle: "Payment", cash: "Cash", card: "Card", qris: "QRIS", received: "Received", change: "Change", exact: "Exact", missing: "Still missing",
  confirm: "Complete sale", cancel: "Cancel", done: "Sale recorded", doneHint: "It is on this device and will reach the server.", newSale: "New sale",
  receiptNo: "Receipt", left: "{n} left", none: "none left", noProducts: "No product fits", loading: "Fetching the products of this branch…",
  live: "Live", catching_up: "Catching up", polling: "Without live updates", offline: "Offline", starting: "Starting", needs_snapshot: "Fetching everything",
  blocked: "Blocked", old: "{age} old", neverSynced: "never fetched", seconds: "{n} s", minutes: "{n} min", hours: "{n} h", waiting: "{n} to send", allSent: "All sent",
  network: "Network", networkOn: "Network is on", networkOff: "Network is switched off", language: "Language", theme: "Appearance", light: "Light", dark: "Dark",
  system: "System", settings: "Settings", forget: "Remove this till from this browser", forgetHint: "Possible once everything is sent.", close: "Close",
  noReceipts: "No receipts yet", queued: "To be sent", accepted: "Booked", rejected: "Rejected", replaced: "Replaced", discarded: "Discarded",
  attentionNone: "Nothing needs you", attentionNoneHint: "Rejected sales would wait here with their reason.", mend: "Correct", retry: "Send again", discard: "Discard",
  mendTitle: "Correct and send again", product: "Product", quantity: "Quantity", items: "{n} items", item: "1 item", sale: "Sale", return: "Return", other: "Stock",
  enrolTitle: "Make this a till", enrolHint: "Ask for a claim code: mstore-sync device add makes one. It works once, for 15 minutes.", code: "Claim code", enrol: "Start selling",
  enrolling: "One moment…", uploadRefused: "Something on the way refuses every upload; the sales are kept here.", discardAsk: "Give this sale up? It stays in the journal.",
  otherTab: "Another tab keeps this till in sync.", more: "One more", less: "One less", remove: "Remove", wrongCode: "The code is wrong, used, or older than 15 minutes.",
  noServer: "The server does not answer. Try again.", storageFull: "The browser could not store the sale. Nothing was recorded.", skip: "Skip to the products",
  unknown_product: "The server does not know this product", currency_differs: "Another currency than the merchant's", below_zero: "The stock would fall below zero",
  already_decided: "It was decided about at the server", refused_by_backend: "The merchant's system refused it", branch_held: "The server holds back the newest changes",
  credentials_refused: "The server no longer knows this till", device_revoked: "This till was revoked", forbidden: "This till may not use this branch",
};

type Word = keyof typeof en;

const id: Record<Word, string> = {
  sell: "Jual", receipts: "Struk", attention: "Perhatian", search: "Cari atau pindai", searchHint: "Nama, nomor artikel, atau barcode",
  all: "Semua", cart: "Penjualan", emptyCart: "Masih kosong", emptyCartHint: "Ketuk produk, atau pindai.", clear: "Kosongkan", total: "Total", pay: "Bayar",
  payTitle: "Pembayaran", cash: "Tunai", card: "Kartu", qris: "QRIS", received: "Diterima", change: "Kembalian", exact: "Uang pas", missing: "Masih kurang",
  confirm: "Selesaikan", cancel: "Batal", done: "Penjualan tercatat", doneHint: "Tersimpan di perangkat ini dan akan sampai ke server.", newSale: "Penjualan baru",
  receiptNo: "Struk", left: "sisa {n}", none: "habis", noProducts: "Tidak ada produk yang cocok", loading: "Mengambil produk cabang ini…",
  live: "Langsung", catching_up: "Mengejar", polling: "Tanpa pembaruan langsung", offline: "Luring", starting: "Memulai", needs_snapshot: "Mengambil semuanya",
  blocked: "Terblokir", old: "umur {age}", neverSynced: "belum pernah diambil", seconds: "{n} dtk", minutes: "{n} mnt", hours: "{n} jam", waiting: "{n} belum terkirim", allSent: "Semua terkirim",
  network: "Jaringan", networkOn: "Jaringan menyala", networkOff: "Jaringan dimatikan", language: "Bahasa", theme: "Tampilan", light: "Terang", dark: "Gelap",
  system: "Sistem", settings: "Pengaturan", forget: "Hapus kasir ini dari peramban", forgetHint: "Bisa setelah semuanya terkirim.", close: "Tutup",
  noReceipts: "Belum ada struk", queued: "Akan dikirim", accepted: "Tercatat", rejected: "Ditolak", replaced: "Diganti", discarded: "Dibuang",
  attentionNone: "Tidak ada yang perlu ditangani", attentionNoneHint: "Penjualan yang ditolak menunggu di sini dengan alasannya.", mend: "Perbaiki", retry: "Kirim lagi", discard: "Buang",
  mendTitle: "Perbaiki dan kirim lagi", product: "Produk", quantity: "Jumlah", items: "{n} barang", item: "1 barang", sale: "Penjualan", return: "Retur", other: "Stok",
  enrolTitle: "Jadikan kasir", enrolHint: "Minta kode klaim: mstore-sync device add membuatnya. Berlaku sekali, selama 15 menit.", code: "Kode klaim", enrol: "Mulai berjualan",
  enrolling: "Sebentar…", uploadRefused: "Sesuatu di jalan menolak setiap kiriman; penjualan tetap tersimpan di sini.", discardAsk: "Buang penjualan ini? Jurnal tetap menyimpannya.",
  otherTab: "Tab lain menyinkronkan kasir ini.", more: "Tambah satu", less: "Kurangi satu", remove: "Hapus", wrongCode: "Kode salah, sudah dipakai, atau lebih dari 15 menit.",
  noServer: "Server tidak menjawab. Coba lagi.", storageFull: "Peramban tidak dapat menyimpan penjualan. Tidak ada yang dicatat.", skip: "Langsung ke produk",
  unknown_product: "Server tidak mengenal produk ini", currency_differs: "Mata uang berbeda dari milik toko", below_zero: "Stok akan di bawah nol",
  already_decided: "Sudah diputuskan di server", refused_by_backend: "Sistem toko menolaknya", branch_held: "Server menahan perubahan terbaru",
  credentials_refused: "Server tidak mengenal kasir ini lagi", device_revoked: "Kasir ini dicabut", forbidden: "Kasir ini tidak boleh memakai cabang ini",
};

export type Language = "en" | "id";
const DICTIONARIES: Record<Language, Record<Word, string>> = { en, id };

function first(): Language {
  const kept = localStorage.getItem("language");
  if (kept === "en" || kept === "id") return kept;
  return navigator.language.startsWith("id") ? "id" : "en";
}

/** The language of this browser's till. */
class Words {
  language = $state<Language>(first());

  choose(language: Language): void {
    this.language = language;
    localStorage.setItem("language", language);
    document.documentElement.lang = language;
  }

  get locale(): string {
    return this.language === "id" ? "id-ID" : "en-GB";
  }
}

export const words = new Words();
document.documentElement.lang = words.language;

/** A word with its figures in place. */
export function t(word: Word, figures: Record<string, string | number> = {}): string {
  return DICTIONARIES[words.language][word].replace(/\{(\w+)\}/g, (_, name: string) => String(figures[name] ?? ""));
}

/** A code of the server in words, if it has any here. */
export function reason(code: string | undefined): string | undefined {
  return code !== undefined && code in en ? t(code as Word) : code;
}
