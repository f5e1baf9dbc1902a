"""2DMSE (Li et al. 2024, arXiv 2402.14776) and Starbucks (Zhuang et al. 2024, arXiv 2410.13230)."""
